# SPDX-License-Identifier: BSD-3-Clause
"""Tables of benchmark cells for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks import bench_stats as stats


def interval(ratio: stats.Ratio) -> str:
    return f"{ratio.value:.2f} [dim]{ratio.low:.2f}-{ratio.high:.2f}[/]"


def mark(cell: stats.Cell) -> str:
    if cell.slower:
        return "[red]slow"
    return "[green]fast" if cell.ratio.high < 1 / cell.bound else ""


def show(console: Console, title: str, fields: tuple[str, ...], cells: list[stats.Cell]) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    for field in fields:
        table.add_column(field, justify="left" if field == fields[0] else "right", no_wrap=True)
    for heading in ("eal", "DPDK", "eal / DPDK", "DPDK / DPDK", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    group = None
    for cell in cells:
        if group not in (None, cell.key[0]):
            table.add_section()
        group = cell.key[0]
        table.add_row(
            *cell.key,
            f"{cell.ours:.2f}",
            f"{cell.dpdk:.2f}",
            interval(cell.ratio),
            interval(cell.noise),
            mark(cell),
        )
    console.print(table)


def show_means(console: Console, name: str, cells: list[stats.Cell]) -> None:
    if not cells:
        return
    slower = sum(cell.slower for cell in cells)
    mean = stats.geometric_mean(cells)
    console.print(f"{name}: geometric mean {mean:.2f}, {slower} of {len(cells)} cells slower", highlight=False)
