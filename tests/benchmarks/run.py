#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""`make bench`: the C core beside DPDK, compiled into one program with the same flags, in interleaved rounds, and then
the Python side beside its rivals and beside C (python_bench.py).

A sample is half a millisecond on one core and two on two cores. Each round takes one sample of every cell
and of every subject: ours, DPDK, and DPDK again, whose difference from itself is the noise. Printed are
medians in nanoseconds an element, ratios of medians, and their 95 % intervals. Bulk sizes are variables, as
in DPDK's own test, but 1, which there as here is a constant; --constant-n makes constants of all. A cell is
"slow" if its interval lies above 1.05 and above what DPDK differs from itself. At the end stands for each rule of
the project whether it holds in this run (bench_rules.py).

Exit status: 0 measured, 1 the program failed, 2 something is missing (named).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `tests`; behind the installed eal

from rich.console import Console

from tests.benchmarks import bench_build, bench_rules, bench_table, python_bench
from tests.benchmarks import bench_stats as stats

ONE_CORE_NS, TWO_CORE_NS = 500_000, 2_000_000
ROUNDS, QUICK_ROUNDS = 101, 41

RING_FIELDS = ("sync", "bulk", "elem", "cores")
MEMPOOL_FIELDS = ("cache", "bulk", "cores")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there, as JSON")
    parser.add_argument("--quick", action="store_true", help="elements of 8 bytes, bulk up to 32, about 10 s")
    parser.add_argument("--rounds", type=int, help="samples of each cell and subject; at least 31")
    parser.add_argument("--ring-count", type=int, default=1024, help="elements in a ring (a power of two)")
    parser.add_argument("--constant-n", action="store_true", help="bulk sizes as compile-time constants")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
    if chosen.rounds < 31:
        parser.error("--rounds is at least 31: fewer give no interval worth printing")
    if chosen.ring_count < 128 or chosen.ring_count & (chosen.ring_count - 1):
        parser.error("--ring-count is a power of two, at least 128")
    return chosen


def measure(program: Path, what: str, options: argparse.Namespace) -> list[stats.Cell]:
    command = [
        str(program), what, str(options.rounds), str(ONE_CORE_NS), str(TWO_CORE_NS),
        str(options.ring_count), str(int(options.constant_n)), str(int(not options.quick)),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return stats.cells(done.stdout.splitlines())


def show_ring(console: Console, cells: list[stats.Cell]) -> None:
    def report(name: str, chosen: Callable[[str, str, str, str], bool]) -> None:
        bench_table.show_means(console, name, [cell for cell in cells if chosen(*cell.key)])

    bench_table.show(
        console, "Ring: medians in ns an element, ratios of medians with 95 % intervals", RING_FIELDS, cells
    )
    report("ST", lambda sync, _bulk, _elem, _cores: sync == "ST")
    report("MT, RTS, HTS", lambda sync, _bulk, _elem, _cores: sync != "ST")
    report("ST, two cores, bulk 1", lambda sync, bulk, _elem, cores: (sync, bulk, cores) == ("ST", "1", "2"))


def show_mempool(console: Console, cells: list[stats.Cell]) -> None:
    title = "Mempool: medians in ns for a get and a put of an object, a cache of 256 or none"
    bench_table.show(console, title, MEMPOOL_FIELDS, cells)
    bench_table.show_means(console, "mempool", cells)


def main() -> int:
    options = arguments()
    console = Console()
    try:
        program = bench_build.build()
    except bench_build.Missing as missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 2
    if len(os.sched_getaffinity(0)) < 2:
        console.print("This process may use one core only: cells of two cores are left out.")
    begin = time.monotonic()
    try:
        rings = measure(program, "ring", options)
        mempools = measure(program, "mempool", options)
    except subprocess.CalledProcessError as failed:
        print(f"bench: the program failed with status {failed.returncode}", file=sys.stderr)
        return 1
    show_ring(console, rings)
    show_mempool(console, mempools)
    python = python_bench.run(console, quick=options.quick)
    verdicts = [*bench_rules.rings(rings), *bench_rules.mempools(mempools), *bench_rules.python(python)]
    bench_rules.show(console, verdicts)
    results: dict[str, Any] = {
        "rounds": options.rounds,
        "ring_count": options.ring_count,
        "constant_n": options.constant_n,
        "ring": [cell.data(RING_FIELDS) for cell in rings],
        "mempool": [cell.data(MEMPOOL_FIELDS) for cell in mempools],
        "python": python,
        "rules": [verdict.data() for verdict in verdicts],
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"{options.rounds} rounds in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
