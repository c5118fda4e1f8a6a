# SPDX-License-Identifier: BSD-3-Clause
"""All Python benchmarks, one after the other."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tests.benchmarks.python import ipc, latency, numba_loop, overhead

SECTIONS = {
    "rivals": ipc,
    "overhead": overhead,
    "numba": numba_loop,
    "latency": latency,
}


def run(console: Console, *, quick: bool) -> dict[str, Any]:
    """Run each benchmark, print its table and return its results. Raise RuntimeError if a message was lost."""
    results = {}
    for name, section in SECTIONS.items():
        results[name] = section.measure(quick=quick)
        section.show(console, results[name])
    return results
