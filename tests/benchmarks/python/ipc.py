# SPDX-License-Identifier: BSD-3-Clause
"""Rings and other IPC libraries in Python: two pinned processes, 64-byte messages, checksum in the timed part."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import eal
from tests.benchmarks.python.channels import CHANNELS
from tests.benchmarks.python.messages import SIZE, SLOTS
from tests.benchmarks.python.pair import samples

SAMPLE_NS = 12_000_000  # target duration of a sample
ROUNDS, QUICK_ROUNDS = 31, 11
TARGETS = {1: 1.0, 32: 15.0, 256: 30.0}  # speed relative to the fastest other library at one message per call


def prepare(app: eal.Eal) -> None:
    flags = eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ
    app.ring_create("bench", SLOTS, elem_size=SIZE, flags=flags)


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Return the median of each channel in ns per message, and its speed relative to the fastest other library.

    The other libraries are compared at one message per call.
    """
    kinds = [kind for kind in CHANNELS if kind.module is None or find_spec(kind.module)]
    times = samples(kinds, prepare, QUICK_ROUNDS if quick else ROUNDS, SAMPLE_NS)
    rows = [
        {"name": kind.name, "batch": kind.batch, "ours": kind.ours, "ns": float(np.median(ns)),
         "quartiles": np.percentile(ns, [25, 75]).tolist()}
        for kind, ns in zip(kinds, times, strict=True)
    ]  # fmt: skip
    best = min((row for row in rows if not row["ours"] and row["batch"] == 1), key=lambda row: row["ns"])
    for row in rows:
        row["times_as_fast"] = best["ns"] / row["ns"]
        if row["ours"]:
            row["target"] = TARGETS[row["batch"]]
    missing = [kind.name for kind in CHANNELS if kind not in kinds]
    return {"best_rival": best["name"], "missing": missing, "rows": rows}


def show(console: Console, results: dict[str, Any]) -> None:
    table = Table(title="Python, two processes, 64-byte messages", title_justify="left", box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for heading in ("per call", "ns per message", "speed ratio", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results["rows"]:
        target = f"{row['target']:.0f}" if row["ours"] else ""
        colour = "" if not row["ours"] else "[green]" if row["times_as_fast"] >= row["target"] else "[red]"
        table.add_row(row["name"], str(row["batch"]), f"{row['ns']:.1f}", f"{colour}{row['times_as_fast']:.2f}", target)
    console.print(table)
    console.print(f"speed ratio: relative to {results['best_rival']} at one message per call", highlight=False)
    if results["missing"]:
        missing = ", ".join(results["missing"])
        console.print(f"not installed, not measured: {missing} (pip install 'ivshmem\\[bench]')")
