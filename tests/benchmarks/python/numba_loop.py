# SPDX-License-Identifier: BSD-3-Clause
"""A forwarding loop in numba and in C; both call the same compiled functions of the core."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from numba import njit
from rich import box
from rich.console import Console
from rich.table import Table

import eal
from eal import jit
from eal._native import ffi, lib
from tests.benchmarks.python import c_loops
from tests.benchmarks.python.pair import on_one_cpu

BURSTS = (1, 8, 32)
SAMPLE_NS = 1_000_000
ROUNDS, QUICK_ROUNDS = 61, 31
TARGET = 1.2


@njit(nogil=True)
def forward(source: int, target: int, elements: Any, rounds: int) -> int:
    """Move bursts from one ring to the other and back; the numba version of loops_forward in loops.c."""
    moved = 0
    for _ in range(rounds):
        got = jit.ring_dequeue_burst(source, elements, len(elements))
        if got > 0:
            moved += jit.ring_enqueue_burst(target, elements, got)
        source, target = target, source
    return moved


def address(name: str) -> int:
    """Return the address of a function of the core, which numba calls by the same name."""
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))


class Loops:
    """Both loops over the same two rings, with bursts of `n` elements."""

    def __init__(self, app: eal.Eal, n: int) -> None:
        flags = eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ
        rings = [app.ring_create(f"{name}{n}", 1024, flags=flags) for name in ("there", "back")]
        self.elements = np.zeros(n, np.uint64)
        assert rings[0].enqueue_bulk(self.elements) == n
        self.handles = np.array([ring.handle for ring in rings], np.uint64)
        self.library = c_loops.load()
        self.calls = address("ivs_jit_dequeue_burst"), address("ivs_jit_enqueue_burst")

    def in_c(self, rounds: int) -> int:
        moved: int = self.library.loops_forward(
            *self.calls, self.handles.ctypes.data, self.elements.ctypes.data, self.elements.nbytes,
            len(self.elements), rounds,
        )  # fmt: skip
        return moved

    def in_numba(self, rounds: int) -> int:
        moved: int = forward(int(self.handles[0]), int(self.handles[1]), self.elements, rounds)
        return moved

    def time(self, loop: Any, rounds: int) -> float:
        """Return nanoseconds per round. `rounds` must be even, so that the elements end in their first ring."""
        begin = time.perf_counter_ns()
        moved = loop(rounds)
        duration = time.perf_counter_ns() - begin
        assert moved == rounds * len(self.elements)
        return duration / rounds


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Return medians in ns for one dequeue and enqueue of a burst, from interleaved samples."""
    c_loops.build()
    rows = []
    prefix = f"bench{os.getpid()}"
    with on_one_cpu(), eal.init(["--no-pci"], file_prefix=prefix, proc_type="primary", no_huge=True) as app:
        for n in BURSTS:
            loops = Loops(app, n)
            loops.time(loops.in_numba, 2)  # compiles the loop
            rounds = int(SAMPLE_NS / loops.time(loops.in_c, 2000)) // 2 * 2
            pairs = [
                (loops.time(loops.in_c, rounds), loops.time(loops.in_numba, rounds))
                for _ in range(QUICK_ROUNDS if quick else ROUNDS)
            ]
            c, numba = np.median(pairs, axis=0).tolist()
            rows.append({"burst": n, "c_ns": c, "numba_ns": numba, "ratio": numba / c, "target": TARGET})
    return {"rows": rows}


def show(console: Console, results: dict[str, Any]) -> None:
    table = Table(title="Forwarding loop: ns per dequeue and enqueue of a burst", title_justify="left", box=box.SIMPLE)
    for heading in ("burst", "C", "numba", "numba / C", "target"):
        table.add_column(heading, justify="right")
    for row in results["rows"]:
        colour = "[green]" if row["ratio"] <= row["target"] else "[red]"
        table.add_row(
            str(row["burst"]), f"{row['c_ns']:.1f}", f"{row['numba_ns']:.1f}", f"{colour}{row['ratio']:.2f}",
            str(row["target"]),
        )  # fmt: skip
    console.print(table)
