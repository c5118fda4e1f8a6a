# SPDX-License-Identifier: BSD-3-Clause
"""What a run has to show (points 8 to 13 of issue 3), and whether it did."""

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
    """One rule in one run. `worst`: what came nearest to breaking it, or broke it."""

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


def _cells(point: int, what: str, cells: list[stats.Cell]) -> Verdict:
    worst = max(cells, key=lambda cell: cell.ratio.low / cell.bound)
    slower = sum(cell.slower for cell in cells)
    rule = f"{what} against DPDK: no cell's 95 % interval above {stats.ALLOWED} or the noise"
    return Verdict(point, rule, not slower, f"{slower} of {len(cells)}; {_cell(worst)}")


def _mean(what: str, most: float, cells: list[stats.Cell]) -> Verdict:
    mean = stats.geometric_mean(cells)
    return Verdict(8, f"geometric mean, {what}: at most {most}", mean <= most, f"{mean:.2f}")


def rings(cells: list[stats.Cell]) -> list[Verdict]:
    """Point 8. The fields of a cell: sync, bulk, element size, cores."""
    st = [cell for cell in cells if cell.key[0] == "ST"]
    verdicts = [
        _cells(8, "ring", cells),
        _mean("ST", MEAN_ST, st),
        _mean("MT, RTS, HTS", MEAN_OTHERS, [cell for cell in cells if cell.key[0] != "ST"]),
    ]
    crossing = [cell for cell in st if cell.key[1] == "1" and cell.key[3] == "2"]
    if crossing:  # none where this process may use one core only
        worst = max(crossing, key=lambda cell: cell.ratio.value)
        rule = f"two cores, ST at 1: at most {TWO_CORES_ST}"
        verdicts.append(Verdict(8, rule, worst.ratio.value <= TWO_CORES_ST, _cell(worst)))
    return verdicts


def mempools(cells: list[stats.Cell]) -> list[Verdict]:
    """Point 9."""
    return [_cells(9, "mempool", cells)]


def _rivals(rows: Iterable[dict[str, Any]], best: str) -> list[Verdict]:
    return [
        Verdict(
            10,
            f"{row['name']}, {row['batch']} a call: at least {row['target']:g} x the best rival at one",
            row["times_as_fast"] >= row["target"],
            f"{row['times_as_fast']:.2f} x {best}, {row['ns']:.1f} ns",
        )
        for row in rows
        if row["ours"]
    ]


def _overhead(rows: Iterable[dict[str, Any]], most: float) -> Verdict:
    worst = max((row for row in rows if row["name"].startswith("Burst")), key=lambda row: row["times"])
    rule = f"Burst: at most {most} x a bare cffi call of its C function"
    return Verdict(11, rule, worst["times"] <= most, f"{worst['name']}: {worst['times']:.2f} x, {worst['ns']:.0f} ns")


def _numba(rows: Iterable[dict[str, Any]]) -> Verdict:
    worst = max(rows, key=lambda row: row["ratio"])
    rule = f"a forwarding loop in numba: at most {worst['target']} x the same in C"
    return Verdict(12, rule, worst["ratio"] <= worst["target"], f"bursts of {worst['burst']}: {worst['ratio']:.2f} x")


def _latency(rows: Iterable[dict[str, Any]]) -> Verdict:
    (row,) = [row for row in rows if row["target"] is not None]
    rule = f"ping-pong in C: at most {row['target']:g} x a bare cache line's"
    times = row["times_the_line"]
    return Verdict(13, rule, times <= row["target"], f"{times:.2f} x, {row['ns']:.0f} ns")


def python(results: dict[str, Any]) -> list[Verdict]:
    """Points 10 to 13, from what python_bench.run gives."""
    rivals, overhead = results["rivals"], results["overhead"]
    return [
        *_rivals(rivals["rows"], rivals["best_rival"]),
        _overhead(overhead["rows"], overhead["target"]),
        _numba(results["numba"]["rows"]),
        _latency(results["latency"]["rows"]),
    ]


def show(console: Console, verdicts: list[Verdict]) -> None:
    table = Table(title="What this run shows", title_justify="left", box=box.SIMPLE)
    table.add_column("point", justify="right")
    for heading in ("rule", "", "worst"):
        table.add_column(heading)
    for verdict in verdicts:
        holds = "[green]holds" if verdict.holds else "[red]does not hold"
        table.add_row(str(verdict.point), verdict.rule, holds, verdict.worst.replace("[", r"\["))
    console.print(table)
