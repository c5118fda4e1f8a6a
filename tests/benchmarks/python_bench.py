# SPDX-License-Identifier: BSD-3-Clause
"""All benchmarks of the Python side, one after the other."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tests.benchmarks import python_latency, python_numba, python_overhead, python_rivals

SECTIONS = {
    "rivals": python_rivals,
    "overhead": python_overhead,
    "numba": python_numba,
    "latency": python_latency,
}


def run(console: Console, *, quick: bool) -> dict[str, Any]:
    """Measures, prints and gives what each section came to. Raises RuntimeError where a message was lost."""
    results = {}
    for name, section in SECTIONS.items():
        results[name] = section.measure(quick=quick)
        section.show(console, results[name])
    return results
