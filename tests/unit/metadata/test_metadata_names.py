# SPDX-License-Identifier: BSD-3-Clause
"""Names of metadata files are unique among all live and kept prefixes of a runtime directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal.lifecycle import cleanup
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.inspect.stale_files import find_stale_files, remove_stale_files

Start = Callable[..., Any]

# Creates metadata in file_prefix argv[1] + argv[2]. A line on its standard input: "detach" or "close".
HOLDER = """
import sys, eal, ivshmem
made = eal.init(file_prefix=sys.argv[1] + sys.argv[2], no_huge=True)
metadata = ivshmem.metadata_create("shared")
metadata.add_memzone(eal.memzone_reserve("zone", 64))
print(metadata.path, flush=True)
getattr(made, sys.stdin.readline().strip() or "close")()
"""


@pytest.fixture
def left_nothing(prefix: str) -> Iterator[None]:
    """Fail if the test leaves files of a prefix whose name starts with the test's prefix."""
    yield
    left = list(Path("/dev/shm").glob(f"*.{prefix}*"))
    for path in left:
        path.unlink()
    assert left == []


@pytest.fixture
def holder(peer: Start, left_nothing: None) -> Callable[[str], tuple[Any, Path]]:
    """Return a function: `holder("other")` starts a process of prefix PREFIX + "other" with metadata "shared".

    It returns the process and the path of the metadata file.
    """

    def start(ending: str) -> tuple[Any, Path]:
        process = peer(HOLDER, ending)
        return process, Path(process.hear())

    return start


Holder = Callable[[str], tuple[Any, Path]]


def test_create_with_name_of_live_prefix_raises_exists(holder: Holder, primary: eal.Eal, prefix: str) -> None:
    process, path = holder("other")
    before = path.read_bytes()
    with pytest.raises(eal.Exists) as caught:
        ivshmem.metadata_create("shared")
    assert f"file_prefix '{prefix}other'" in str(caught.value)
    assert f"pid {process.pid}" in str(caught.value)
    assert path.read_bytes() == before
    assert primary.directory.metadata_names() == []
    ivshmem.metadata_create("own").close()
    process.say("close")
    process.end()
    ivshmem.metadata_create("shared").close()


def test_create_with_name_of_prefix_with_live_secondary_raises_exists(
    holder: Holder, peer: Start, runtime_dir: Path, prefix: str
) -> None:
    process, _ = holder("other")
    secondary = peer(
        """
        import sys, eal
        with eal.init(file_prefix=sys.argv[1] + "other", proc_type="secondary"):
            print("in", flush=True)
            sys.stdin.readline()
        """
    )
    secondary.hear()
    process.crash()
    with eal.init(file_prefix=prefix, no_huge=True):
        with pytest.raises(eal.Exists, match=rf"\(pid {secondary.pid}\)"):
            ivshmem.metadata_create("shared")
        secondary.end()
        ivshmem.metadata_create("shared").close()
    cleanup.remove(PrefixDir(runtime_dir, f"{prefix}other"))


def test_create_with_name_of_dead_prefix_removes_its_file(
    holder: Holder, primary: eal.Eal, runtime_dir: Path, prefix: str
) -> None:
    process, path = holder("other")
    process.crash()
    assert path.exists()
    metadata = ivshmem.metadata_create("shared")
    assert not path.exists()
    other = PrefixDir(runtime_dir, f"{prefix}other")
    assert other.metadata_names() == []
    assert metadata.table.entries == ()
    (dead,) = find_stale_files(runtime_dir)
    assert dead.directory == other
    remove_stale_files(dead)
    assert Path(metadata.path).exists()


def test_create_with_name_of_kept_prefix_raises_exists(
    holder: Holder, primary: eal.Eal, runtime_dir: Path, prefix: str
) -> None:
    process, path = holder("other")
    process.say("detach")
    process.end()
    with pytest.raises(eal.Exists, match=rf"file_prefix '{prefix}other' \(kept, no process\)"):
        ivshmem.metadata_create("shared")
    assert path.exists()
    assert find_stale_files(runtime_dir) == []
    cleanup.remove(PrefixDir(runtime_dir, f"{prefix}other"))
    ivshmem.metadata_create("shared").close()


def test_names_of_other_runtime_directory_are_independent(
    holder: Holder, tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, path = holder("")
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(tmp_path / "elsewhere"))
    with eal.init(file_prefix=prefix, no_huge=True):
        metadata = ivshmem.metadata_create("shared")
        assert metadata.path != str(path)
    assert path.exists()
    process.end()


# --- concurrent creation ------------------------------------------------------------------------------------

RACER = """
import sys, time, eal, ivshmem
with eal.init(file_prefix=sys.argv[1] + sys.argv[2], no_huge=True):
    print("ready", flush=True)
    for line in sys.stdin:
        name, at = line.split()
        while time.monotonic() < float(at):
            pass
        try:
            won = ivshmem.metadata_create(name)
            print("won", flush=True)
        except eal.Exists as error:
            print("lost", error, flush=True)
            continue
        if name == "again":
            sys.stdin.readline()
            won.close()
            print("closed", flush=True)
"""
ROUNDS = 20


def race(racers: list[Any], name: str) -> list[str]:
    """Let two processes create metadata of one name at the same time, and return their outputs."""
    moment = time.monotonic() + 0.005
    for racer in racers:
        racer.say(f"{name} {moment}")
    return [racer.hear() for racer in racers]


def test_one_of_two_concurrent_creations_succeeds(
    peer: Start, left_nothing: None, runtime_dir: Path, prefix: str
) -> None:
    racers = [peer(RACER, "a"), peer(RACER, "b")]
    for racer in racers:
        assert racer.hear() == "ready"
    for number in range(ROUNDS):
        said = race(racers, f"vm{number}")
        assert sorted(line.split()[0] for line in said) == ["lost", "won"], said
        winner = next(n for n, line in enumerate(said) if line == "won")
        assert f"file_prefix {prefix + 'ab'[winner]!r} (pid {racers[winner].pid})" in said[1 - winner]
    names = [PrefixDir(runtime_dir, prefix + ending).metadata_names() for ending in "ab"]
    assert sorted(names[0] + names[1]) == sorted(f"vm{number}" for number in range(ROUNDS))
    for racer in racers:
        racer.end()
    assert list(runtime_dir.iterdir()) == []


def test_name_is_free_after_concurrent_creation_and_close(peer: Start, left_nothing: None, runtime_dir: Path) -> None:
    racers = [peer(RACER, "a"), peer(RACER, "b")]
    for racer in racers:
        racer.hear()
    for _ in range(ROUNDS):
        said = race(racers, "again")
        assert sorted(line.split()[0] for line in said) == ["lost", "won"], said
        winner = racers[said.index("won")]
        winner.say()
        assert winner.hear() == "closed"
    for racer in racers:
        racer.end()
    assert list(runtime_dir.iterdir()) == []


def test_concurrent_creation_in_threads_creates_each_name_once(primary: eal.Eal) -> None:
    def create(number: int) -> str:
        try:
            return ivshmem.metadata_create(f"vm{number % 10}").path
        except eal.Exists:
            return ""

    with ThreadPoolExecutor(8) as pool:
        won = [path for path in pool.map(create, range(80)) if path]
    assert len(won) == 10
    assert sorted(Path("/dev/shm").glob(f"*.{primary.file_prefix}.*.md")) == sorted(map(Path, won))


# --- killed processes ---------------------------------------------------------------------------------------


def test_restart_after_kill_removes_metadata_files(
    holder: Holder, left_nothing: None, runtime_dir: Path, prefix: str
) -> None:
    paths = []
    for _ in range(3):
        process, path = holder("")
        paths.append(path)
        assert len(list(Path("/dev/shm").glob(f"*.{prefix}.*"))) == 2  # one segment, one metadata file
        process.crash()
    with eal.init(file_prefix=prefix, no_huge=True) as primary:
        assert primary.proc_type == "primary"
        assert primary.directory.metadata_names() == []
        assert not any(path.exists() for path in paths)
        ivshmem.metadata_create("shared")
    assert list(runtime_dir.iterdir()) == []


def test_files_of_killed_primary_are_stale(holder: Holder, runtime_dir: Path, prefix: str) -> None:
    process, path = holder("")
    assert find_stale_files(runtime_dir) == []
    process.crash()
    (stale,) = find_stale_files(runtime_dir)
    assert path in stale.files
    assert all(file.exists() or file.is_symlink() for file in stale.files)
    remove_stale_files(stale)
    assert list(runtime_dir.iterdir()) == []
    assert find_stale_files(runtime_dir) == []


def test_process_killed_with_names_lock_blocks_no_other(peer: Start, runtime_dir: Path, prefix: str) -> None:
    process = peer(
        """
        import sys, time, eal, ivshmem, ivshmem.metadata.create
        eal.init(file_prefix=sys.argv[1] + "other", no_huge=True)
        def claim(*_):
            print("holds", flush=True)
            time.sleep(60)
        ivshmem.metadata.create.claim_name = claim
        ivshmem.metadata_create("shared")
        """
    )
    process.hear()
    process.crash()
    with eal.init(file_prefix=prefix, no_huge=True):
        ivshmem.metadata_create("shared")
    cleanup.remove(PrefixDir(runtime_dir, f"{prefix}other"))
    assert list(runtime_dir.iterdir()) == []


# --- lookup -------------------------------------------------------------------------------------------------


def test_secondary_adds_to_metadata_of_primary(primary: eal.Eal, peer: Start) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    secondary = peer(
        """
        import sys, eal, ivshmem
        with eal.init(file_prefix=sys.argv[1], proc_type="secondary", no_huge=True):
            metadata = ivshmem.metadata_lookup("vm0")
            print([entry.name for entry in metadata.table.entries])
            try:
                metadata.add_memzone(eal.memzone_lookup("zone"))
            except eal.Exists as error:
                print(error)
            metadata.add_ring(eal.ring_create("ring", 8))
            try:
                ivshmem.metadata_create("vm0")
            except eal.Exists as error:
                print(error)
        """
    )
    said = secondary.end().splitlines()
    assert said[0] == "['zone']"
    assert said[1] == "metadata 'vm0' already has memzone 'zone'"
    assert "'vm0' already exists in this file_prefix" in said[2]
    assert [entry.name for entry in metadata.table.entries] == ["zone", "ring"]
    assert Path(metadata.path).exists()


def test_recovered_primary_looks_up_its_metadata(holder: Holder, runtime_dir: Path, prefix: str) -> None:
    process, path = holder("")
    process.crash()
    with eal.init(file_prefix=prefix, no_huge=True, recover=True):
        metadata = ivshmem.metadata_lookup("shared")
        assert metadata.path == str(path)
        assert [entry.name for entry in metadata.table.entries] == ["zone"]
        metadata.add_ring(eal.ring_create("ring", 8))
        assert ivshmem.metadata_lookup("shared") is metadata
        with pytest.raises(eal.Exists):
            ivshmem.metadata_create("shared")
    assert not path.exists()


def test_lookup_of_missing_name_lists_existing_names(primary: eal.Eal) -> None:
    with pytest.raises(
        eal.NotFound, match=f"file_prefix '{primary.file_prefix}' has no metadata 'vm0'; existing: none"
    ):
        ivshmem.metadata_lookup("vm0")
    ivshmem.metadata_create("vm1")
    ivshmem.metadata_create("vm2")
    with pytest.raises(LookupError, match="existing: 'vm1', 'vm2'"):
        ivshmem.metadata_lookup("vm0")


def test_lookup_of_damaged_file_raises_corrupt(holder: Holder, runtime_dir: Path, prefix: str) -> None:
    process, path = holder("")
    process.crash()
    with eal.init(file_prefix=prefix, no_huge=True, recover=True) as primary:
        for damage in (b"", b"short", bytes(1 << 20)):
            path.write_bytes(damage)
            with pytest.raises(eal.Corrupt, match="metadata"):
                ivshmem.metadata_lookup("shared")
        path.unlink()
        with pytest.raises(eal.NotFound, match="does not exist"):
            ivshmem.metadata_lookup("shared")
        assert primary.children() == []
