# SPDX-License-Identifier: BSD-3-Clause
"""The performance rules of the project (issue 3, points 8 to 13), checked against the results of one run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks import bench_stats as stats

MEAN_ST, MEAN_OTHERS, TWO_CORES_ST = 0.8, 1.0, 0.5


@dataclass(frozen=True)
class Verdict:
    """The result of one rule in one run. `worst` describes the value closest to the limit, or beyond it."""

    point: int
    rule: str
    holds: bool
    worst: str

    def data(self) -> dict[str, Any]:
        return asdict(self)


def _cell(cell: stats.Cell) -> str:
    ratio, noise = cell.ratio, cell.noise
    return (
        f"{' '.join(cell.key)}: {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], "
        f"noise {noise.value:.2f} [{noise.low:.2f}, {noise.high:.2f}]"
    )


def _cells(point: int, subject: str, cells: list[stats.Cell]) -> Verdict:
    worst = max(cells, key=lambda cell: cell.ratio.low / cell.bound)
    slower = sum(cell.slower for cell in cells)
    rule = f"{subject} against DPDK: no cell's 95 % interval above {stats.ALLOWED} or the noise"
    return Verdict(point, rule, not slower, f"{slower} of {len(cells)}; {_cell(worst)}")


def _mean(subject: str, limit: float, cells: list[stats.Cell]) -> Verdict:
    mean = stats.geometric_mean(cells)
    return Verdict(8, f"geometric mean, {subject}: at most {limit}", mean <= limit, f"{mean:.2f}")


def rings(cells: list[stats.Cell]) -> list[Verdict]:
    """Compare the rings with rte_ring. The key of a cell is (sync mode, bulk size, element size, cores)."""
    st = [cell for cell in cells if cell.key[0] == "ST"]
    verdicts = [
        _cells(8, "ring", cells),
        _mean("ST", MEAN_ST, st),
        _mean("MT, RTS, HTS", MEAN_OTHERS, [cell for cell in cells if cell.key[0] != "ST"]),
    ]
    two_cores = [cell for cell in st if cell.key[1] == "1" and cell.key[3] == "2"]
    if two_cores:  # empty if this process may use one core only
        worst = max(two_cores, key=lambda cell: cell.ratio.value)
        rule = f"two cores, ST, bulk 1: at most {TWO_CORES_ST}"
        verdicts.append(Verdict(8, rule, worst.ratio.value <= TWO_CORES_ST, _cell(worst)))
    return verdicts


def mempools(cells: list[stats.Cell]) -> list[Verdict]:
    """Compare the mempools with rte_mempool."""
    return [_cells(9, "mempool", cells)]


def _rivals(rows: Iterable[dict[str, Any]], best: str) -> list[Verdict]:
    return [
        Verdict(
            10,
            f"{row['name']}, {row['batch']} per call: at least {row['target']:g} x the fastest other library at 1",
            row["times_as_fast"] >= row["target"],
            f"{row['times_as_fast']:.2f} x {best}, {row['ns']:.1f} ns",
        )
        for row in rows
        if row["ours"]
    ]


def _overhead(rows: Iterable[dict[str, Any]], limit: float) -> Verdict:
    worst = max((row for row in rows if row["name"].startswith("Burst")), key=lambda row: row["times"])
    rule = f"Burst: at most {limit} x a direct cffi call of its C function"
    return Verdict(11, rule, worst["times"] <= limit, f"{worst['name']}: {worst['times']:.2f} x, {worst['ns']:.0f} ns")


def _numba(rows: Iterable[dict[str, Any]]) -> Verdict:
    worst = max(rows, key=lambda row: row["ratio"])
    rule = f"forwarding loop in numba: at most {worst['target']} x the loop in C"
    return Verdict(12, rule, worst["ratio"] <= worst["target"], f"bursts of {worst['burst']}: {worst['ratio']:.2f} x")


def _latency(rows: Iterable[dict[str, Any]]) -> Verdict:
    (row,) = [row for row in rows if row["target"] is not None]
    rule = f"ping-pong in C: at most {row['target']:g} x a cache line"
    ratio = row["times_the_line"]
    return Verdict(13, rule, ratio <= row["target"], f"{ratio:.2f} x, {row['ns']:.0f} ns")


def python(results: dict[str, Any]) -> list[Verdict]:
    """Return the results of points 10 to 13. `results` is the return value of sections.run."""
    rivals, overhead = results["rivals"], results["overhead"]
    return [
        *_rivals(rivals["rows"], rivals["best_rival"]),
        _overhead(overhead["rows"], overhead["target"]),
        _numba(results["numba"]["rows"]),
        _latency(results["latency"]["rows"]),
    ]


def show(console: Console, verdicts: list[Verdict]) -> None:
    table = Table(title="Performance rules", title_justify="left", box=box.SIMPLE)
    table.add_column("point", justify="right")
    for heading in ("rule", "", "worst value"):
        table.add_column(heading)
    for verdict in verdicts:
        holds = "[green]holds" if verdict.holds else "[red]does not hold"
        table.add_row(str(verdict.point), verdict.rule, holds, verdict.worst.replace("[", r"\["))
    console.print(table)
