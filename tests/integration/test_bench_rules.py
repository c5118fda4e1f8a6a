# SPDX-License-Identifier: BSD-3-Clause
"""The performance rules of `make bench`, checked with synthetic results."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks import bench_rules
from tests.benchmarks.bench_stats import Cell, Ratio

NO_NOISE = Ratio(1.0, 0.99, 1.01)


def cell(key: str, value: float, *, low: float | None = None, noise: Ratio = NO_NOISE) -> Cell:
    low = value if low is None else low
    return Cell(tuple(key.split()), value, 1.0, Ratio(value, low, value + 0.01), noise)


def holds(verdicts: list[bench_rules.Verdict]) -> list[bool]:
    return [verdict.holds for verdict in verdicts]


def test_rings_within_limits_keep_all_rules() -> None:
    cells = [cell("ST 1 8 1", 1.0), cell("ST 1 8 2", 0.4), cell("MT 8 8 1", 0.9)]
    assert holds(bench_rules.rings(cells)) == [True, True, True, True]


def test_rings_beyond_limit_break_each_rule() -> None:
    slow = [cell("ST 32 8 1", 0.1), cell("ST 1 8 2", 0.4), cell("MT 8 8 1", 1.2, low=1.06), cell("HTS 8 8 1", 0.5)]
    verdicts = bench_rules.rings(slow)
    assert holds(verdicts) == [False, True, True, True]
    assert "1 of 4; MT 8 8 1: 1.20 [1.06, 1.21], noise 1.00 [0.99, 1.01]" in verdicts[0].worst
    assert holds(bench_rules.rings([cell("ST 1 8 2", 0.49), cell("ST 1 4 2", 0.51), cell("MT 1 8 1", 1.01)])) == [
        True, True, False, False,
    ]  # fmt: skip
    assert holds(bench_rules.rings([cell("ST 1 8 1", 0.81), cell("MT 1 8 1", 1.0)])) == [True, False, True]


def test_noise_raises_limit_of_cell() -> None:
    assert holds(bench_rules.mempools([cell("256 1 1", 1.2, noise=Ratio(1.1, 0.98, 1.3))])) == [True]
    assert holds(bench_rules.mempools([cell("256 1 1", 1.2, noise=Ratio(0.8, 0.7, 0.9))])) == [True]
    assert holds(bench_rules.mempools([cell("256 1 1", 1.4, noise=Ratio(1.1, 0.98, 1.3))])) == [False]


def results(burst: float, times: float, numba: float, trip: float) -> dict[str, Any]:
    return {
        "rivals": {
            "best_rival": "other",
            "rows": [
                {"name": "Burst", "batch": 32, "ours": True, "target": 15.0, "times_as_fast": burst, "ns": 12.0},
                {"name": "other", "batch": 1, "ours": False, "times_as_fast": 1.0, "ns": 190.0},
            ],
        },
        "overhead": {
            "target": 1.3,
            "rows": [
                {"name": "Burst.enqueue(n)", "times": 0.4, "ns": 40.0},
                {"name": "Burst.dequeue()", "times": times, "ns": 40.0},
                {"name": "Mempool.get_bulk, put_bulk", "times": 5.0, "ns": 400.0},
            ],
        },
        "numba": {"rows": [{"burst": 1, "ratio": 0.9, "target": 1.2}, {"burst": 8, "ratio": numba, "target": 1.2}]},
        "latency": {
            "rows": [
                {"name": "line", "ns": 85.0, "times_the_line": 1.0, "target": None},
                {"name": "ring", "ns": 120.0, "times_the_line": trip, "target": 2.0},
            ]
        },
    }


@pytest.mark.parametrize("broken", range(5))
def test_python_results_beyond_limit_break_each_rule(broken: int) -> None:
    good, bad = [15.0, 1.3, 1.2, 2.0], [14.9, 1.31, 1.21, 2.01]
    measured = [bad[i] if i == broken else good[i] for i in range(4)]
    verdicts = bench_rules.python(results(*measured))
    assert holds(verdicts) == [i != broken for i in range(4)]
    assert [verdict.point for verdict in verdicts] == [10, 11, 12, 13]
