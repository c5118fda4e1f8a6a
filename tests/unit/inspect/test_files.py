# SPDX-License-Identifier: BSD-3-Clause
"""Inspection of intact, copied and damaged files, without a live process of the prefix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import eal
import ivshmem
from eal import MempoolFlag, RingFlag
from eal.linux import process
from ivshmem.cli import cli
from ivshmem.inspect.files import inspect_file, locate
from ivshmem.inspect.text import inspection_lines

ST = RingFlag.SP_ENQ | RingFlag.SC_DEQ

HOST = """
import os, struct, sys
import eal, ivshmem
ST = eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ
made = eal.init(["--no-pci"], file_prefix=sys.argv[1], no_huge=True)
metadata = ivshmem.metadata_create("vm0")
single, many = eal.ring_create("single", 64, flags=ST), eal.ring_create("many", 64, elem_size=4)
pool = eal.mempool_create("pool", 64, 32, cache_size=8)
debug = eal.mempool_create("debug", 16, 32, flags=eal.MempoolFlag.DEBUG)
zone = eal.array_reserve("zone", (3, 4), "<u4")
private = eal.memzone_reserve("private", 100, group="host")
for add, thing in (
    (metadata.add_ring, single), (metadata.add_ring, many), (metadata.add_mempool, pool), (metadata.add_memzone, zone)
):
    add(thing)
for number in range(5):
    single.enqueue(number)
    many.enqueue(number)
single.dequeue()
held = [pool.get() for _ in range(3)]
debug.get()
(head,) = struct.unpack_from("<I", many.memzone.buf, 128)
struct.pack_into("<I", many.memzone.buf, 128, head + 7)  # as if a producer died during an enqueue
print(os.getpid(), metadata.path, zone.segment.path, private.segment.path)
sys.stdin.readline()
"""


class DeadHost:
    """The files of a host process that was killed."""

    def __init__(self, peer: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
        host = peer(HOST)
        pid, *paths = host.hear().split()
        self.pid = int(pid)
        self.metadata, self.segment, self.private = map(Path, paths)
        self.registry = runtime_dir / prefix / "registry"
        host.crash()


@pytest.fixture
def dead(peer: Callable[..., Any], runtime_dir: Path, prefix: str) -> Any:
    found = DeadHost(peer, runtime_dir, prefix)
    yield found
    for path in (found.metadata, found.segment, found.private):
        path.unlink(missing_ok=True)


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def inspected(path: Path, status: int = 0) -> dict[str, Any]:
    """Run `ivshmem inspect` on a file, with and without --json, and return the data."""
    text, done = run("inspect", path), run("inspect", path, "--json")
    assert (text.exit_code, done.exit_code) == (status, status), (text.output, done.output)
    data: dict[str, Any] = json.loads(done.stdout)
    assert bool(data["faults"]) == bool(status)
    assert text.stdout.count("FAULT: ") == len(data["faults"])
    return data


def objects(data: dict[str, Any]) -> dict[str, Any]:
    segments = data.get("segments", [data])
    return {one["name"]: one for segment in segments for one in segment["objects"]}


def check_contents(found: dict[str, Any], pid: int, state: str = "dead") -> None:
    single, many, pool = found["single"], found["many"], found["pool"]
    assert (single["count"], single["capacity"], single["free"], single["elem_size"]) == (4, 63, 59, 8)
    owner = {"machine": f"{process.machine_id():08x}", "thread": pid, "state": state}
    assert single["producer"] == {
        "sync": "ST", "head": 5, "tail": 5, "half_moved": False, "reserved": 0, "owner": owner,
    }  # fmt: skip
    assert (single["consumer"]["tail"], single["consumer"]["owner"]) == (1, owner)
    assert (many["producer"]["half_moved"], many["producer"]["reserved"], many["producer"]["sync"]) == (True, 7, "MT")
    assert many["producer"]["owner"] is None
    assert not many["consumer"]["half_moved"]
    assert (pool["n"], pool["available"], pool["in_use"], pool["in_hand"]) == (64, 61, 3, 3)
    (cached,) = pool["cached"]
    assert (cached["owner"], pool["free"] + cached["n"]) == (owner, 61)
    assert pool["dead_hold"] == (cached["n"] if state == "dead" else 0)


def test_inspect_registry_of_dead_host_changes_no_file(dead: DeadHost) -> None:
    before = {path: path.read_bytes() for path in (dead.metadata, dead.segment, dead.private)}
    times = {path: path.stat().st_mtime_ns for path in (*before, dead.registry)}
    data = inspected(dead.registry)
    assert (data["kind"], data["kept"], data["former"], len(data["segments"])) == ("registry", False, False, 2)
    found = objects(data)
    assert set(found) == {"single", "many", "pool", "debug", "zone", "private"}
    check_contents(found, dead.pid)
    assert (found["zone"]["dtype"], found["zone"]["shape"]) == ('"<u4"', [3, 4])
    (holder,) = found["debug"]["holders"]
    assert (holder["n"], holder["owner"]["state"]) == (1, "dead")
    (participant,) = data["segments"][0]["participants"]
    assert (participant["pid"], participant["state"], data["segments"][0]["retired"]) == (dead.pid, "dead", False)
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_inspect_metadata_of_dead_host(dead: DeadHost) -> None:
    for name in (dead.metadata, "vm0"):
        data = inspected(Path(name))
        assert (data["kind"], data["name"]) == ("metadata", "vm0")
        assert set(objects(data)) == {"single", "many", "pool", "zone"}
        check_contents(objects(data), dead.pid)


def test_inspect_segment_takes_names_from_registry(dead: DeadHost, prefix: str) -> None:
    data = inspected(dead.segment)
    assert data["names_from"] == str(dead.registry)
    check_contents(objects(data), dead.pid)
    assert objects(inspected(dead.private))["private"]["length"] == 100
    assert inspected(Path(prefix))["kind"] == "registry"


def test_inspect_copies_in_another_directory(dead: DeadHost, tmp_path: Path) -> None:
    """Copies are kept for a post-mortem analysis, when the original files no longer exist."""
    away = tmp_path / "away"
    away.mkdir()
    for path in (dead.metadata, dead.segment, dead.private, dead.registry):
        shutil.copy(path, away / path.name)
        path.unlink()
    check_contents(objects(inspected(away / "registry")), dead.pid)
    check_contents(objects(inspected(away / dead.metadata.name)), dead.pid)
    assert inspected(away / dead.segment.name)["names_from"] == str(away / "registry")
    (away / "registry").unlink()
    data = inspected(away / dead.segment.name)
    assert data["names_from"] == str(away / dead.metadata.name)
    check_contents(objects(data), dead.pid)


def test_inspect_lone_segment_finds_objects_by_magic(dead: DeadHost, tmp_path: Path) -> None:
    lone = tmp_path / "anything"
    shutil.copy(dead.segment, lone)
    dead.registry.unlink()
    dead.metadata.unlink()
    data = inspected(lone)
    assert data["names_from"] is None
    assert set(objects(data)) == {"single", "many", "pool", "debug"}
    check_contents(objects(data), dead.pid)
    assert "found by their magics" in run("inspect", lone).stdout


def test_live_owners_are_alive_and_remote_ones_unknown(primary: eal.Eal) -> None:
    ring = eal.ring_create("ring", 8, flags=ST)
    ring.enqueue(1)
    pool = eal.mempool_create("pool", 8, 8, cache_size=2)
    pool.get()
    data = inspected(primary.directory.registry)
    assert data["segments"][0]["participants"][0]["state"] == "alive"
    assert objects(data)["ring"]["producer"]["owner"]["state"] == "alive"
    (slot, _) = (ring.memzone.segment.slot(), ring.memzone.segment.mapping.view()[:4096])
    assert slot is not None
    other = ring.memzone.segment.mapping.view()[2048 + 32 * 9 :]
    other[:8] = (0xABCD << 32 | 77).to_bytes(8, "little")
    states = {one["slot"]: one["state"] for one in inspected(primary.directory.registry)["segments"][0]["participants"]}
    assert states == {slot.index: "alive", 9: "unknown"}
    other[:8] = bytes(8)


def test_inspect_shows_retired_segment(primary: eal.Eal) -> None:
    zone = eal.memzone_reserve("zone", 64)
    zone.segment.retire()
    assert inspected(Path(zone.segment.path))["retired"]
    assert "RETIRED" in run("inspect", zone.segment.path).stdout


def overwrite(path: Path, at: int, raw: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(raw)


def selector_of(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[128:136], "little")


@pytest.mark.parametrize("kind", ["registry", "metadata"])
def test_damaged_table_file_header_leaves_tables_readable(dead: DeadHost, kind: str) -> None:
    path: Path = getattr(dead, kind)
    for at in (16, 0):  # its uuid, then its magic too
        overwrite(path, at, b"\xff" * 8)
        data = inspected(path, 1)
        assert data["kind"] == kind
        check_contents(objects(data), dead.pid)


@pytest.mark.parametrize("kind", ["registry", "metadata"])
def test_damaged_current_table_shows_previous_table(dead: DeadHost, kind: str) -> None:
    path: Path = getattr(dead, kind)
    room = (path.stat().st_size - 4096) // 2
    overwrite(path, 4096 + (selector_of(path) & 1) * room, b"\xff" * 64)
    data = inspected(path, 1)
    assert data["former"]
    assert "single" in objects(data)
    assert ("zone" in objects(data)) == (kind == "registry"), "the last change of a metadata file added the zone"
    assert "PREVIOUS TABLE" in run("inspect", path).stdout
    overwrite(path, 4096 + (selector_of(path) + 1 & 1) * room, b"\xff" * 64)
    assert "segments" not in inspected(path, 1)


def test_damaged_segment_header_leaves_objects_readable(dead: DeadHost) -> None:
    overwrite(dead.segment, 64, b"\xff" * 8)  # its epoch
    data = inspected(dead.segment, 1)
    assert "CRC" in data["faults"][0]
    check_contents(objects(data), dead.pid)
    check_contents(objects(inspected(dead.registry, 1)), dead.pid)


def test_damaged_ring_leaves_other_objects_readable(dead: DeadHost) -> None:
    (ring,) = (one for one in inspected(dead.segment)["objects"] if one["name"] == "single")
    overwrite(dead.segment, ring["offset"] + 48, b"\xff" * 4)
    data = inspected(dead.segment, 1)
    assert [one["name"] for one in data["objects"] if one["fault"]] == ["single"]
    assert objects(data)["many"]["count"] == 5
    assert "ring 'single'" in data["faults"][0]
    assert "ring 'single'" in "\n".join(inspection_lines(data))


def test_truncated_segment_reports_objects_beyond_end(dead: DeadHost) -> None:
    zone = objects(inspected(dead.segment))["zone"]
    os.truncate(dead.segment, zone["offset"] + 8)
    data = inspected(dead.segment, 1)
    assert "truncated" in "".join(data["faults"])
    assert objects(data)["zone"]["fault"]
    assert objects(data)["single"]["count"] == 4


def test_missing_or_exchanged_segment_file_is_a_fault(dead: DeadHost) -> None:
    dead.private.unlink()
    data = inspected(dead.registry, 1)
    assert "does not exist" in data["faults"][0]
    assert objects(data)["private"]["length"] == 100
    check_contents(objects(data), dead.pid)
    shutil.copy(dead.segment, dead.private)
    assert "must contain segment" in "".join(inspected(dead.registry, 1)["faults"])


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 4096, b"#!/bin/sh\n" * 1000])
def test_inspect_other_file_fails(tmp_path: Path, runtime_dir: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    done = run("inspect", path)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert str(path) in done.stderr


def test_inspect_unreadable_path_fails_with_reason(tmp_path: Path, runtime_dir: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, reason in ((tmp_path / "none", "does not exist"), (tmp_path, "regular"), (tmp_path / "fifo", "regular")):
        done = run("inspect", path)
        assert done.exit_code == 1
        assert reason in done.stderr


def test_random_damage_does_not_crash(dead: DeadHost) -> None:
    """Runs in a child process, because an invalid memory access would end the process."""
    script = """
    import random, sys
    from pathlib import Path
    from ivshmem.inspect.files import inspect_leniently
    from ivshmem.inspect.text import inspection_lines
    random = random.Random(int(sys.argv[1]))
    paths = [Path(word) for word in sys.argv[2:]]
    whole = {path: path.read_bytes() for path in paths[:2]}
    for number in range(150):
        for path, data in whole.items():
            for _ in range(random.randrange(1, 30)):
                at = random.choice((random.randrange(256), random.randrange(4096), random.randrange(30000)))
                with path.open("r+b") as file:
                    file.seek(min(at, len(data) - 8))
                    file.write(random.choice((bytes(8), b"\\xff" * 8, random.randbytes(8), b"\\1" + bytes(7))))
        for path in paths:
            list(inspection_lines(inspect_leniently(path).as_json() | {}))
        for path, data in whole.items():
            path.write_bytes(data)
    """
    seed = int.from_bytes(os.urandom(4), "little")
    paths = [dead.segment, dead.metadata, dead.registry]
    text = "\n".join(line.removeprefix("    ") for line in script.splitlines())
    done = subprocess.run(
        [sys.executable, "-P", "-c", text, str(seed), *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"


# --- names --------------------------------------------------------------------------------------------------


def test_metadata_name_with_leading_dash(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = ivshmem.metadata_create("-vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    for command in ("dump", "cmdline", "inspect", "exposure"):
        done = run(command, "--json", "--", "-vm0")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)
        assert run(command, "-vm0").exit_code == 2
    seen = "import eal; print([zone.name for zone in eal.init().memzones()])"
    ivshmem_command = [sys.executable, "-P", "-c", "from ivshmem.cli import main; main()"]
    for words in (["--", "-vm0", "--"], ["--file-prefix", primary.file_prefix, "--", "-vm0", "--"]):
        ended = subprocess.run(
            [*ivshmem_command, "emulate", *words, sys.executable, "-P", "-c", seen], capture_output=True, text=True
        )
        assert (ended.returncode, ended.stdout) == (0, "['zone']\n"), ended.stderr


def test_locate_prefers_existing_file_then_metadata_then_prefix(
    primary: eal.Eal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = primary.directory.root
    metadata = ivshmem.metadata_create("vm0")
    assert locate(root, "vm0").resolve() == Path(metadata.path)
    assert locate(root, primary.file_prefix) == primary.directory.registry
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vm0").write_bytes(b"a file of that name here")
    assert locate(root, "vm0") == Path("vm0")
    assert locate(root, "vm0", primary.file_prefix).resolve() == Path(metadata.path)
    with pytest.raises(eal.NotFound, match="'vm0'"):
        locate(root, "vm1")
    assert inspect_file(Path(metadata.path)).data["name"] == "vm0"


def test_inspect_debug_mempool_shows_owners(primary: eal.Eal) -> None:
    pool = eal.mempool_create("pool", 8, 8, flags=MempoolFlag.DEBUG)
    pool.get()
    text = run("inspect", primary.directory.registry).stdout
    assert "1 allocated by machine" in text
    assert "(alive)" in text
