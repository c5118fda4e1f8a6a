#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""`make bench`: compare the C core with DPDK, and the Python classes with other IPC libraries and with C.

The C core and DPDK are compiled into one program with the same flags. A sample takes 0.5 ms on one core and 2 ms on two
cores. Each round takes one sample of every cell for eal, for DPDK, and for DPDK again; the ratio of DPDK to itself is
the noise. The tables contain medians in ns per element, ratios of medians, and their 95 % confidence intervals. Bulk
sizes are variables except for 1, as in DPDK's own test; --constant-n makes all of them constants. A cell is "slow" if
its interval is above 1.05 and above the noise. The last table lists the performance rules of the project
(bench_rules.py).

Exit status: 0 success, 1 the benchmark program failed, 2 a requirement is not installed.
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

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `tests`; after the installed eal

from rich.console import Console

from tests.benchmarks import bench_build, bench_rules, bench_table
from tests.benchmarks import bench_stats as stats
from tests.benchmarks.python import sections

ONE_CORE_NS, TWO_CORE_NS = 500_000, 2_000_000
ROUNDS, QUICK_ROUNDS = 101, 41

RING_FIELDS = ("sync", "bulk", "elem", "cores")
MEMPOOL_FIELDS = ("cache", "bulk", "cores")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE as JSON")
    parser.add_argument("--quick", action="store_true", help="elements of 8 bytes, bulk sizes up to 32, about 10 s")
    parser.add_argument("--rounds", type=int, help="samples per cell and subject, at least 31")
    parser.add_argument("--ring-count", type=int, default=1024, help="elements of a ring, a power of two")
    parser.add_argument("--constant-n", action="store_true", help="bulk sizes as compile-time constants")
    options = parser.parse_args()
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if options.rounds < 31:
        parser.error(f"--rounds must be at least 31 for a useful interval, got {options.rounds}")
    if options.ring_count < 128 or options.ring_count & (options.ring_count - 1):
        parser.error(f"--ring-count must be a power of two >= 128, got {options.ring_count}")
    return options


def measure(program: Path, subject: str, options: argparse.Namespace) -> list[stats.Cell]:
    command = [
        str(program), subject, str(options.rounds), str(ONE_CORE_NS), str(TWO_CORE_NS),
        str(options.ring_count), str(int(options.constant_n)), str(int(not options.quick)),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return stats.cells(done.stdout.splitlines())


def show_ring(console: Console, cells: list[stats.Cell]) -> None:
    def show_means(name: str, selects: Callable[[str, str, str, str], bool]) -> None:
        bench_table.show_means(console, name, [cell for cell in cells if selects(*cell.key)])

    bench_table.show(
        console, "Ring: medians in ns per element, ratios of medians with 95 % intervals", RING_FIELDS, cells
    )
    show_means("ST", lambda sync, _bulk, _elem, _cores: sync == "ST")
    show_means("MT, RTS, HTS", lambda sync, _bulk, _elem, _cores: sync != "ST")
    show_means("ST, two cores, bulk 1", lambda sync, bulk, _elem, cores: (sync, bulk, cores) == ("ST", "1", "2"))


def show_mempool(console: Console, cells: list[stats.Cell]) -> None:
    title = "Mempool: medians in ns per get and put of an object, cache size 256 or 0"
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
        console.print("This process may use one core only: no cells with two cores.")
    begin = time.monotonic()
    try:
        rings = measure(program, "ring", options)
        mempools = measure(program, "mempool", options)
    except subprocess.CalledProcessError as failed:
        print(f"bench: benchmark program failed with status {failed.returncode}", file=sys.stderr)
        return 1
    show_ring(console, rings)
    show_mempool(console, mempools)
    python = sections.run(console, quick=options.quick)
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
