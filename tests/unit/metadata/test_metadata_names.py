# SPDX-License-Identifier: BSD-3-Clause
"""Names of metadata among processes: one holder at a time, whichever prefix it is of, alive, dead or kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal.lifecycle import cleanup as leftovers
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.inspect.stale_files import find_stale_files, remove_stale_files

Start = Callable[..., Any]

# Holds a metadata of file_prefix argv[1] + argv[2]. A line on its standard input: "detach" or "close".
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
    """Fails where files of a prefix that starts as the test's does are left."""
    yield
    left = list(Path("/dev/shm").glob(f"*.{prefix}*"))
    for path in left:
        path.unlink()
    assert left == []


@pytest.fixture
def holder(peer: Start, left_nothing: None) -> Callable[[str], tuple[Any, Path]]:
    """`holder("other")`: a living process of the prefix with that ending has metadata "shared", in the file given."""

    def start(ending: str) -> tuple[Any, Path]:
        process = peer(HOLDER, ending)
        return process, Path(process.hear())

    return start


Holder = Callable[[str], tuple[Any, Path]]


def test_a_living_prefix_keeps_its_name(holder: Holder, primary: eal.Eal, prefix: str) -> None:
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


def test_a_secondary_keeps_the_name_of_its_dead_primary(
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
    leftovers.remove(PrefixDir(runtime_dir, f"{prefix}other"))


def test_a_dead_prefix_gives_its_name_up(holder: Holder, primary: eal.Eal, runtime_dir: Path, prefix: str) -> None:
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


def test_a_kept_prefix_keeps_its_name(holder: Holder, primary: eal.Eal, runtime_dir: Path, prefix: str) -> None:
    process, path = holder("other")
    process.say("detach")
    process.end()
    with pytest.raises(eal.Exists, match=rf"file_prefix '{prefix}other' has it \(kept, no process\)"):
        ivshmem.metadata_create("shared")
    assert path.exists()
    assert find_stale_files(runtime_dir) == []
    leftovers.remove(PrefixDir(runtime_dir, f"{prefix}other"))
    ivshmem.metadata_create("shared").close()


def test_another_runtime_directory_is_another_world(
    holder: Holder, tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, path = holder("")
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(tmp_path / "elsewhere"))
    with eal.init(file_prefix=prefix, no_huge=True):
        metadata = ivshmem.metadata_create("shared")
        assert metadata.path != str(path)
    assert path.exists()
    process.end()


# --- the same moment ----------------------------------------------------------------------------------------

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
    """What two processes say that both create a metadata at one moment."""
    import time

    moment = time.monotonic() + 0.005
    for racer in racers:
        racer.say(f"{name} {moment}")
    return [racer.hear() for racer in racers]


def test_of_two_at_the_same_moment_one_wins(peer: Start, left_nothing: None, runtime_dir: Path, prefix: str) -> None:
    racers = [peer(RACER, "a"), peer(RACER, "b")]
    for racer in racers:
        assert racer.hear() == "ready"
    for number in range(ROUNDS):
        said = race(racers, f"vm{number}")
        assert sorted(line.split()[0] for line in said) == ["lost", "won"], said
        winner = next(n for n, line in enumerate(said) if line == "won")
        assert f"file_prefix {prefix + 'ab'[winner]!r} has it (pid {racers[winner].pid})" in said[1 - winner]
    names = [PrefixDir(runtime_dir, prefix + ending).metadata_names() for ending in "ab"]
    assert sorted(names[0] + names[1]) == sorted(f"vm{number}" for number in range(ROUNDS))
    for racer in racers:
        racer.end()
    assert list(runtime_dir.iterdir()) == []


def test_the_same_name_over_and_over(peer: Start, left_nothing: None, runtime_dir: Path) -> None:
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


def test_threads_of_one_process(primary: eal.Eal) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def create(number: int) -> str:
        try:
            return ivshmem.metadata_create(f"vm{number % 10}").path
        except eal.Exists:
            return ""

    with ThreadPoolExecutor(8) as pool:
        won = [path for path in pool.map(create, range(80)) if path]
    assert len(won) == 10
    assert sorted(Path("/dev/shm").glob(f"*.{primary.file_prefix}.*.md")) == sorted(map(Path, won))


# --- killed -------------------------------------------------------------------------------------------------


def test_what_a_killed_primary_left_is_gone_after_the_next_start(
    holder: Holder, left_nothing: None, runtime_dir: Path, prefix: str
) -> None:
    paths = []
    for _ in range(3):
        process, path = holder("")
        paths.append(path)
        assert len(list(Path("/dev/shm").glob(f"*.{prefix}.*"))) == 2  # one segment, one metadata: nothing grows
        process.crash()
    with eal.init(file_prefix=prefix, no_huge=True) as primary:
        assert primary.proc_type == "primary"
        assert primary.directory.metadata_names() == []
        assert not any(path.exists() for path in paths)
        ivshmem.metadata_create("shared")
    assert list(runtime_dir.iterdir()) == []


def test_what_a_killed_primary_left_is_garbage(holder: Holder, runtime_dir: Path, prefix: str) -> None:
    process, path = holder("")
    assert find_stale_files(runtime_dir) == []
    process.crash()
    (piece,) = find_stale_files(runtime_dir)
    assert path in piece.files
    assert all(file.exists() or file.is_symlink() for file in piece.files)
    remove_stale_files(piece)
    assert list(runtime_dir.iterdir()) == []
    assert find_stale_files(runtime_dir) == []


def test_a_process_killed_while_it_holds_the_names_keeps_nobody_waiting(
    peer: Start, runtime_dir: Path, prefix: str
) -> None:
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
    leftovers.remove(PrefixDir(runtime_dir, f"{prefix}other"))
    assert list(runtime_dir.iterdir()) == []


# --- finding them again -------------------------------------------------------------------------------------


def test_a_secondary_adds_to_the_primarys_metadata(primary: eal.Eal, peer: Start) -> None:
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
    assert said[1] == "metadata 'vm0' has memzone 'zone' already"
    assert "'vm0' exists already in this file_prefix" in said[2]
    assert [entry.name for entry in metadata.table.entries] == ["zone", "ring"]
    assert Path(metadata.path).exists()


def test_a_recovered_primary_finds_its_metadata(holder: Holder, runtime_dir: Path, prefix: str) -> None:
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


def test_lookup_of_none_names_those_there_are(primary: eal.Eal) -> None:
    with pytest.raises(
        eal.NotFound, match=f"file_prefix '{primary.file_prefix}' has no metadata 'vm0'; there are: none"
    ):
        ivshmem.metadata_lookup("vm0")
    ivshmem.metadata_create("vm1")
    ivshmem.metadata_create("vm2")
    with pytest.raises(LookupError, match="there are: 'vm1', 'vm2'"):
        ivshmem.metadata_lookup("vm0")


def test_lookup_of_one_that_is_damaged(holder: Holder, runtime_dir: Path, prefix: str) -> None:
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
