# SPDX-License-Identifier: BSD-3-Clause
"""Elapsed time of cpu-layout from start to exit: on this machine, and for a captured tree with 512 CPUs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `tests`; after the installed eal

from tests.machines import regular

ROOT = Path(__file__).resolve().parents[2]
RUNS = 20


def measure(command: list[str]) -> str:
    """Return the best and the median time in milliseconds. Other processes can only add to the best time."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - start) * 1000)
    return f"{min(times):6.1f} {statistics.median(times):8.1f}"


def main() -> None:
    """Print one line per case."""
    script = [sys.executable, "-I", str(ROOT / "tools/cpu_layout.py")]
    with tempfile.TemporaryDirectory() as folder:
        tree = str(regular(2, 128, 2, 4, interleaved=True).write(Path(folder)))
        print(f"cpu-layout, ms of {RUNS} runs          best   median")
        print("Python alone                   ", measure([sys.executable, "-I", "-c", "pass"]))
        print("this machine                   ", measure(script))
        print("captured tree, 512 CPUs        ", measure([*script, "--sysfs", tree]))
        print("captured tree, --json          ", measure([*script, "--sysfs", tree, "--json"]))
        print("captured tree, --all           ", measure([*script, "--sysfs", tree, "--all"]))


if __name__ == "__main__":
    main()
