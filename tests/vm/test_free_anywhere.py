# SPDX-License-Identifier: BSD-3-Clause
"""Free anywhere: the guest frees objects that the host allocated, and vice versa, ten million times.

Two processes of two threads on each side use one pool through two rings, in C (free_anywhere.c). FREE_ANYWHERE_CYCLES
in the environment sets another number of cycles.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem

pytestmark = pytest.mark.vm_alone  # threads of host and guest poll at the same time

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "interop"
SCRIPT = HERE.parent / "guests/free_anywhere.py"
PROCESSES = THREADS = 2  # per side
OBJECTS = 4096
CYCLES = int(os.environ.get("FREE_ANYWHERE_CYCLES", "10_000_000"))
CORE = ("ring", "mempool", "mempool_debug", "segment", "crc32c", "fault")
PLAN = [("objects", "<u8", (2,)), ("processes", "<u4"), ("threads", "<u4")]


@pytest.fixture(scope="session")
def program() -> Path:
    """free_anywhere, compiled as by a user; statically linked, so that it starts quickly in a VM."""
    include = Path(eal.get_include())
    core = [include / "src" / f"{name}.c" for name in CORE]
    sources = [HERE / "free_anywhere.c", *core]
    text = b"".join(path.read_bytes() for path in [*sources, *sorted(include.glob("*.h"))])
    made = BUILD / f"free_anywhere-{hashlib.sha256(text).hexdigest()[:16]}"
    if not made.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        fresh = made.with_suffix(f".{os.getpid()}")
        compiler = shlex.split(os.environ.get("CC", "cc"))
        command = [*compiler, "-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", f"-I{include}"]
        subprocess.run([*command, *map(str, sources), "-o", str(fresh)], check=True)
        fresh.rename(made)
    return made


def make(name: str, cycles: int) -> ivshmem.Metadata:
    """Half of the cycles begin on the host, half in the guest."""
    parts = PROCESSES * THREADS * 2
    half = -(-cycles // parts) * (parts // 2)
    metadata = ivshmem.metadata_create(name)
    plan = eal.array_reserve("plan", (), PLAN)
    plan.array()[...] = ((half, half), PROCESSES, THREADS)
    for zone in (plan, eal.array_reserve("tally", 2, "<u8")):
        metadata.add_memzone(zone)
    for ring in ("of_host", "of_guest"):
        metadata.add_ring(eal.ring_create(ring, 1024, elem_size=4))
    metadata.add_mempool(eal.mempool_create("objects", OBJECTS, 64, cache_size=64))
    return metadata


def test_objects_freed_on_the_other_side_are_all_accounted_for(
    primary: eal.Eal, guest: Callable[..., Any], program: Path, record_property: Callable[[str, object], None]
) -> None:
    metadata = make("free", CYCLES)
    there = guest("free_anywhere", metadata, arguments=[program, 1])
    options = ["--file-prefix", primary.file_prefix, "--proc-type", "secondary"]
    here = subprocess.run([sys.executable, "-P", SCRIPT, program, "0", *options], capture_output=True, text=True)
    assert here.returncode == 0, here.stdout + here.stderr
    report = there.hear()
    there.end()

    assert report["faults"] == []
    half = int(eal.memzone_lookup("plan").array()["objects"][0])
    assert eal.memzone_lookup("tally").array().tolist() == [half, half]
    assert 2 * half >= CYCLES
    record_property("cycles", 2 * half)
    record_property("seconds", report["seconds"])
    pool = eal.mempool_lookup("objects")
    audit = pool.audit()
    assert audit.ok, str(audit)
    assert sorted(audit.free) == list(range(OBJECTS)), str(audit)  # each index once, none in a cache
    assert (pool.in_use, pool.available) == (0, OBJECTS)
    assert all(eal.ring_lookup(ring).empty for ring in ("of_host", "of_guest"))
