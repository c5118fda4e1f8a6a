# SPDX-License-Identifier: BSD-3-Clause
"""Overhead of Python methods over direct cffi calls of the same C functions.

A direct call passes a handle, a pointer and a number that were created before the loop, as a program without Ring,
Burst or Mempool would.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import eal
from eal._native import ffi, lib
from tests.benchmarks.python.pair import on_one_cpu

N = 8  # elements per call: few, so that the calls dominate the time
CALLS = 500  # calls per sample
ROUNDS, QUICK_ROUNDS = 201, 61
BURST_TARGET = 1.3


Timer = Callable[[], float]


def timer(call: str, **names: Any) -> Timer:
    """Return a function that returns the ns per iteration of a loop around the statement `call`."""
    code = f"def sample():\n for _ in loop:\n  {call}"
    names["loop"] = range(CALLS)
    exec(code, names)  # every case runs the same bytecode: calls of globals with globals as arguments
    sample = names["sample"]

    def measure() -> float:
        begin = time.perf_counter_ns()
        sample()
        return (time.perf_counter_ns() - begin) / CALLS

    return measure


@dataclass(frozen=True)
class Case:
    """A method and the direct call that it is compared with."""

    name: str
    method: Timer
    bare: Timer
    before: Callable[[], object] = int  # empties or fills the ring before each sample
    calls: int = 1  # calls per iteration


def ring_cases(app: eal.Eal) -> list[Case]:
    flags = eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ
    ring = app.ring_create("overhead", CALLS * N, flags=flags | eal.RingFlag.EXACT_SZ)
    array, burst = np.zeros(N, np.uint64), ring.burst(N)
    handle = ffi.cast("struct ivs_ring *", ring.handle)
    elements = ffi.from_buffer("char[]", array)

    def fill() -> None:
        while ring.enqueue_bulk(array):
            pass

    enqueue = timer("f(a, b, c)", f=lib.ivs_call_enqueue_burst, a=handle, b=elements, c=N)
    dequeue = timer("f(a, b, c)", f=lib.ivs_call_dequeue_burst, a=handle, b=elements, c=N)
    return [
        Case("Burst.enqueue(n)", timer("f(a)", f=burst.enqueue, a=N), enqueue, ring.reset),
        Case("Burst.dequeue()", timer("f()", f=burst.dequeue), dequeue, fill),
        Case("Ring.enqueue_burst(array)", timer("f(a)", f=ring.enqueue_burst, a=array), enqueue, ring.reset),
        Case("Ring.dequeue_burst(array)", timer("f(a)", f=ring.dequeue_burst, a=array), dequeue, fill),
    ]


def pool_case(app: eal.Eal) -> Case:
    pool = app.mempool_create("overhead", 1024, 64, cache_size=256)
    array = np.zeros(N, np.uint32)
    handle, objects = ffi.cast("struct ivs_mempool *", pool.handle), ffi.from_buffer("uint32_t[]", array)
    method = timer("f(a); g(a)", f=pool.get_bulk, g=pool.put_bulk, a=array)
    bare = timer("f(a, b, c); g(a, b, c)", f=lib.ivs_call_get_bulk, g=lib.ivs_call_put_bulk, a=handle, b=objects, c=N)
    return Case("Mempool.get_bulk, put_bulk", method, bare, calls=2)


def median(case: Case, subject: str, loop: float, times: dict[str, list[float]]) -> float:
    return (float(np.median(times[case.name + subject])) - loop) / case.calls


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Return medians in ns per call, from interleaved samples, without the time of the empty loop."""
    empty = timer("pass")
    times: dict[str, list[float]] = {}
    prefix = f"bench{os.getpid()}"
    with on_one_cpu(), eal.init(["--no-pci"], file_prefix=prefix, proc_type="primary", no_huge=True) as app:
        cases = [*ring_cases(app), pool_case(app)]
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            times.setdefault("loop", []).append(empty())
            for case in cases:
                for subject in ("method", "bare"):
                    case.before()
                    times.setdefault(case.name + subject, []).append(getattr(case, subject)())
    loop = float(np.median(times["loop"]))
    rows = []
    for case in cases:
        method, bare = (median(case, subject, loop, times) for subject in ("method", "bare"))
        rows.append({"name": case.name, "ns": method, "bare_ns": bare, "times": method / bare})
    return {"elements": N, "target": BURST_TARGET, "rows": rows}


def show(console: Console, results: dict[str, Any]) -> None:
    title = f"Python over C: ns per call of {results['elements']} elements"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for heading in ("ns", "direct cffi", "ratio", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results["rows"]:
        target = str(results["target"]) if row["name"].startswith("Burst") else ""
        colour = "" if not target else "[green]" if row["times"] <= results["target"] else "[red]"
        table.add_row(row["name"], f"{row['ns']:.0f}", f"{row['bare_ns']:.0f}", f"{colour}{row['times']:.2f}", target)
    console.print(table)
