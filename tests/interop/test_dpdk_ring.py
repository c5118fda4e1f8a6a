# SPDX-License-Identifier: BSD-3-Clause
"""Our rings with the real DPDK at the other end: C programs that map the segment's file and work the ring in it.

peer_dpdk is compiled against DPDK's headers and takes our ring for an rte_ring; peer_ours has our headers alone.
Each consumer checks the order of each producer's numbers, and that none comes twice; afterwards none may be missing.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import eal

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "interop"
CORE = [ROOT / "native" / "src" / name for name in ("ring.c", "crc32c.c")]

F = eal.RingFlag
MODES = {
    "ST": F.SP_ENQ | F.SC_DEQ,
    "MT": F(0),
    "RTS": F.MP_RTS_ENQ | F.MC_RTS_DEQ,
    "HTS": F.MP_HTS_ENQ | F.MC_HTS_DEQ,
}
ONE_WAY = 10_000_000  # objects in each direction
BOTH_AT_ONCE = 5_000_000  # of each of two producers
SEEN_HEADER = 64
TIME_LIMIT = 60  # seconds for one crew of peers


def compile_peer(name: str, flags: list[str], libraries: list[str]) -> Path:
    """Compiles a peer, unless it is there and made of the same text."""
    include = ROOT / "native" / "include"
    sources = [HERE / f"{name}.c", *(CORE if name == "peer_ours" else [])]
    text = b"".join(path.read_bytes() for path in [HERE / "peer.h", *sources, *sorted(include.glob("*.h"))])
    program = BUILD / f"{name}-{hashlib.sha256(text).hexdigest()[:16]}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")  # another worker may do the same at the same time
        compiler = shlex.split(os.environ.get("CC", "cc"))
        command = [*compiler, "-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror", *flags, f"-I{include}"]
        subprocess.run([*command, *map(str, sources), "-o", str(fresh), *libraries], check=True)
        fresh.rename(program)
    return program


@pytest.fixture(scope="module")
def ours() -> Path:
    return compile_peer("peer_ours", [], [])


@pytest.fixture(scope="module")
def dpdk() -> Path:
    def pkg_config(what: str) -> list[str]:
        command = ["pkg-config", what, "libdpdk"]
        return shlex.split(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return compile_peer("peer_dpdk", pkg_config("--cflags"), pkg_config("--libs"))


@dataclass(frozen=True)
class Stage:
    """A ring in a segment's file, and the account that its consumers keep together."""

    ring: eal.Ring
    seen: Path
    producers: int
    objects: int

    @property
    def where(self) -> list[str]:
        zone = self.ring.memzone
        return [str(zone.segment.path), str(zone.offset), str(self.ring.elem_size)]

    def produce(self, program: Path, me: int) -> list[str]:
        return [str(program), *self.where, "produce", str(me), str(self.objects)]

    def consume(self, program: Path) -> list[str]:
        return [str(program), *self.where, "consume", str(self.seen), str(self.producers), str(self.objects)]

    def check(self) -> None:
        times = np.fromfile(self.seen, dtype=np.uint8, offset=SEEN_HEADER)
        assert len(times) == self.producers * self.objects
        assert np.all(times == 1), f"{np.count_nonzero(times == 0)} lost, {np.count_nonzero(times > 1)} twice"
        assert len(self.ring) == 0


def stage(tmp_path: Path, mode: str, elem_size: int, producers: int, objects: int, name: str = "r") -> Stage:
    ring = eal.ring_create(name, 1024, elem_size=elem_size, flags=MODES[mode])
    seen = tmp_path / f"{name}.seen"
    seen.write_bytes(bytes(SEEN_HEADER))
    os.truncate(seen, SEEN_HEADER + producers * objects)
    return Stage(ring, seen, producers, objects)


def run_together(*commands: list[str]) -> None:
    """Runs all commands at once; each must succeed. When one fails the others, which then wait for ever, are ended."""
    peers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    deadline = time.monotonic() + TIME_LIMIT
    try:
        while any(peer.poll() is None for peer in peers) and time.monotonic() < deadline:
            if any(peer.returncode for peer in peers):
                break
            time.sleep(0.005)
    finally:
        for peer in peers:
            peer.kill()  # whoever ended by himself keeps his status
    faults = [f"status {peer.wait()}: {peer.communicate()[1].strip()}" for peer in peers if peer.wait()]
    assert not faults, "; ".join(faults)


@pytest.fixture
def _runtime(prefix: str, runtime_dir: Path) -> None:
    eal.init(file_prefix=prefix, no_huge=True)


@pytest.mark.dpdk
@pytest.mark.parametrize("elem_size", [8, 16])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("_runtime")
def test_one_way(mode: str, elem_size: int, ours: Path, dpdk: Path, tmp_path: Path) -> None:
    """DPDK produces and we consume; then the reverse, on the same ring."""
    there = stage(tmp_path, mode, elem_size, 1, ONE_WAY)
    run_together(there.produce(dpdk, 0), there.consume(ours))
    there.check()
    there.seen.write_bytes(bytes(SEEN_HEADER + there.objects))
    run_together(there.produce(ours, 0), there.consume(dpdk))
    there.check()


@pytest.mark.dpdk
@pytest.mark.parametrize("mode", ["MT", "RTS", "HTS"])
@pytest.mark.usefixtures("_runtime")
def test_both_at_each_end(mode: str, ours: Path, dpdk: Path, tmp_path: Path) -> None:
    """Two processes produce and two consume, one of each with DPDK: four at once on one ring."""
    both = stage(tmp_path, mode, 8, 2, BOTH_AT_ONCE)
    run_together(
        both.produce(dpdk, 0), both.produce(ours, 1), both.consume(dpdk), both.consume(ours)
    )  # fmt: skip
    both.check()


@pytest.mark.dpdk
@pytest.mark.usefixtures("_runtime")
def test_both_ways_at_once(ours: Path, dpdk: Path, tmp_path: Path) -> None:
    """ST has one thread at an end: so two rings, one in each direction."""
    there = stage(tmp_path, "ST", 8, 1, BOTH_AT_ONCE, "there")
    back = stage(tmp_path, "ST", 8, 1, BOTH_AT_ONCE, "back")
    run_together(there.produce(dpdk, 0), there.consume(ours), back.produce(ours, 0), back.consume(dpdk))
    there.check()
    back.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("_runtime")
def test_own_headers_alone(mode: str, ours: Path, tmp_path: Path) -> None:
    """A C program without DPDK: as many producers and consumers as the mode allows."""
    crowd = 1 if mode == "ST" else 2
    both = stage(tmp_path, mode, 8, crowd, 2 * BOTH_AT_ONCE // crowd)
    run_together(*(both.produce(ours, i) for i in range(crowd)), *(both.consume(ours) for _ in range(crowd)))
    both.check()


@pytest.mark.usefixtures("_runtime")
def test_the_account_sees_a_fault(ours: Path, tmp_path: Path) -> None:
    """Two producers that say they are the same one: the consumer must object."""
    both = stage(tmp_path, "MT", 8, 2, 100_000)
    with pytest.raises(AssertionError, match=r"peer: (twice|out of order)"):
        run_together(both.consume(ours), both.produce(ours, 0), both.produce(ours, 0))
