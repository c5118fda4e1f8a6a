"""Tables of measured cells, for a terminal."""

from __future__ import annotations

import bench_stats as stats
from rich.console import Console
from rich.table import Table


def interval(ratio: stats.Ratio) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def verdict(cell: stats.Cell) -> str:
    if cell.slower:
        return "[red]slower"
    return "[green]faster" if cell.ratio.high < 1 / cell.bound else ""


def show(console: Console, title: str, fields: tuple[str, ...], cells: list[stats.Cell]) -> None:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for field in fields:
        table.add_column(field, justify="left" if field == fields[0] else "right")
    for heading in ("ours, ns", "DPDK, ns", "ours / DPDK (95 %)", "DPDK / DPDK (95 %)"):
        table.add_column(heading, justify="right")
    table.add_column("")
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
            verdict(cell),
        )
    console.print(table)


def show_means(console: Console, name: str, cells: list[stats.Cell]) -> None:
    if not cells:
        return
    slower = sum(cell.slower for cell in cells)
    console.print(
        f"{name}: geometric mean of the ratios {stats.geometric_mean(cells):.2f}; "
        f"{slower} of {len(cells)} cells slower than DPDK by more than 5 % and more than noise",
        highlight=False,
    )
