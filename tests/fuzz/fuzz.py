#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""`make fuzz`: run the validation of headers and tables on millions of damaged inputs.

The first part fuzzes the C core (native/tests/fuzz_attach.c, under AddressSanitizer and UBSan), the second part a guest
in Python. Each input of the second part is an emulated bus with one to three damaged parts, most of them with valid
CRCs. The guest probes the bus and uses the objects it finds. Failures are crashes, hangs, and exceptions that are not
EalErrors; for each, the command to reproduce it is printed.

Exit status: 0 no failure, 1 at least one failure.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `tests`; after the installed eal

from tests.fuzz.bus import Bus
from tests.fuzz.guest import visit

NATIVE = Path(__file__).resolve().parents[2] / "native"
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
QUIET = ["-Wno-array-bounds", "-Wno-stringop-overflow"]  # false positives with sanitizers
CORE = ("ring", "mempool", "mempool_debug", "segment", "table", "crc32c", "fault")
WHOLE_EAL = 1000  # one in this many inputs is probed by eal.init()
PATIENCE = 60  # seconds per 100 inputs; more is a hang


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000, help="number of inputs per part")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="[current time]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes for the Python part [all CPUs]")
    parser.add_argument("--input", type=int, metavar="N", help="run only input N of the seed, in this process")
    return parser.parse_args()


# --- C core -----------------------------------------------------------------------------------------------------


def run_native(runs: int, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "fuzz_attach"
        sources = [NATIVE / "tests/fuzz_attach.c", *(NATIVE / f"src/{name}.c" for name in CORE)]
        command = ["cc", "-std=gnu11", *SANITIZED, *QUIET, f"-I{NATIVE / 'include'}", "-pthread"]
        subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True)
        return subprocess.run([program, str(runs), str(seed)], check=False).returncode == 0


# --- guest in Python --------------------------------------------------------------------------------------------


def one_input(bus: Bus, seed: int, number: int) -> int:
    names = bus.damage(seed, number)
    try:
        return visit(bus.root, names) if number % WHOLE_EAL else visit_by_init(bus.root)
    finally:
        bus.restore()


def visit_by_init(root: Path) -> int:
    """Probe the bus by eal.init(), as an application does."""
    import eal

    with tempfile.TemporaryDirectory() as folder:
        os.environ["EAL_RUNTIME_DIR"] = folder
        with eal.init(file_prefix="fuzz", no_huge=True, sysfs_root=root, stall_timeout=0.001):
            return len(eal.memzones()) + len(eal.rings()) + len(eal.mempools())


def work(seed: int, first: int, step: int, runs: int, progress: mmap.mmap, slot: int) -> int:
    """Run inputs first, first + step, ...; write the current number and the count of used objects to `progress`."""
    logging.disable()
    faulthandler.enable()
    used = 0
    with tempfile.TemporaryDirectory(prefix="ivshmem-fuzz-", dir="/dev/shm") as folder:
        bus = Bus(Path(folder))
        for done, number in enumerate(range(first, runs, step)):
            if done % 100 == 0:
                faulthandler.dump_traceback_later(PATIENCE, exit=True)
            struct.pack_into("<QQ", progress, slot * 16, number, used)
            try:
                used += one_input(bus, seed, number)
            except BaseException:
                traceback.print_exc()
                return 1
        faulthandler.cancel_dump_traceback_later()
        struct.pack_into("<QQ", progress, slot * 16, runs, used)
    return 0


def run_python(runs: int, seed: int, jobs: int) -> bool:
    progress = mmap.mmap(-1, 16 * jobs)
    children = {}
    for slot in range(jobs):
        if (pid := os.fork()) == 0:
            os._exit(work(seed, slot, jobs, runs, progress, slot))
        children[pid] = slot
    passed = True
    for pid, slot in children.items():
        _, status = os.waitpid(pid, 0)
        if status:
            passed = False
            number = struct.unpack_from("<Q", progress, slot * 16)[0]
            print(f"status {status}; to reproduce: {sys.argv[0]} --seed {seed} --input {number}", file=sys.stderr)
    used = sum(struct.unpack_from("<Q", progress, slot * 16 + 8)[0] for slot in range(jobs))
    print(f"Python: {runs} buses, {used} objects used", flush=True)
    return passed and (runs < 1000 or used > runs)  # if all inputs were rejected, nothing was tested


def main() -> int:
    chosen = arguments()
    print(f"seed {chosen.seed}", flush=True)
    if chosen.input is not None:
        return work(chosen.seed, chosen.input, 1, chosen.input + 1, mmap.mmap(-1, 16), 0)
    begin = time.monotonic()
    native = run_native(chosen.runs, chosen.seed)
    python = run_python(chosen.runs, chosen.seed, chosen.jobs)
    verdict = "no failures" if native and python else "FAILURES"
    print(f"{2 * chosen.runs} inputs in {time.monotonic() - begin:.0f} s: {verdict}")
    return 0 if native and python else 1


if __name__ == "__main__":
    sys.exit(main())
