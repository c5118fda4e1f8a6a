# SPDX-License-Identifier: BSD-3-Clause
"""State read from files: prefixes alive, kept and dead, metadata by name, and what may be removed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eal
import ivshmem
from eal.lifecycle import cleanup as leftovers
from eal.runtime.prefix_dir import PrefixDir, file_stem
from ivshmem.inspect.prefixes import prefix_states
from ivshmem.inspect.stale_files import find_stale_files, remove_stale_files
from ivshmem.metadata.lookup import find_metadata

HOST = """
import sys, eal, ivshmem
made = eal.init(file_prefix=sys.argv[1] + sys.argv[2], no_huge=True)
metadata = ivshmem.metadata_create("of" + sys.argv[2])
metadata.add_memzone(eal.memzone_reserve("zone", 64))
print("made", flush=True)
sys.stdin.readline()
made.detach() if sys.argv[3:] == ["keep"] else made.close()
"""


@pytest.fixture
def host(peer: Callable[..., Any], prefix: str) -> Iterator[Callable[..., Any]]:
    """`host("x")`: a process of file_prefix PREFIX + "x" that has metadata "ofx"."""

    def start(ending: str, *how: str) -> Any:
        process = peer(HOST, ending, *how)
        process.hear()
        return process

    yield start
    for path in Path("/dev/shm").glob(f"ivshmem.*.{prefix}*"):
        path.unlink()


@pytest.fixture
def one_of_each(host: Callable[..., Any]) -> Any:
    """Prefixes that end in "alive", "dead" and "kept"; gives the process that lives."""
    host("dead").crash()
    host("kept", "keep").end()
    return host("alive")


def data_files(prefix: str) -> set[Path]:
    return set(Path("/dev/shm").glob(f"ivshmem.*.{prefix}.*"))


# --- prefixes -----------------------------------------------------------------------------------------------


def test_an_empty_world(runtime_dir: Path, tmp_path: Path) -> None:
    for root in (runtime_dir, tmp_path / "not created yet"):
        assert prefix_states(root) == []
        assert find_stale_files(root) == []
        with pytest.raises(eal.NotFound, match=f"file_prefix 'x' has no files in {root}"):
            prefix_states(root, "x")
        with pytest.raises(eal.NotFound, match=r"there is no metadata 'vm0' in .*; there are: none"):
            find_metadata(root, "vm0")
    assert not (tmp_path / "not created yet").exists()


def test_alive_kept_and_dead(one_of_each: Any, runtime_dir: Path, prefix: str) -> None:
    states = prefix_states(runtime_dir)
    assert [(state.prefix, state.status, state.pid) for state in states] == [
        (f"{prefix}alive", "alive", one_of_each.pid),
        (f"{prefix}dead", "dead", None),
        (f"{prefix}kept", "kept", None),
    ]
    for state in states:
        assert state.table is not None
        assert [entry.name for entry in state.table.entries] == ["zone"]
    assert [state.prefix for state in prefix_states(runtime_dir, f"{prefix}dead")] == [f"{prefix}dead"]
    with pytest.raises(eal.NotFound):
        prefix_states(runtime_dir, prefix)


def test_a_kept_prefix_that_is_alive_is_alive(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("x", "keep").end()
    with eal.init(file_prefix=f"{prefix}x", no_huge=True):
        (state,) = prefix_states(runtime_dir)
        assert (state.status, state.kept, state.pid) == ("alive", True, os.getpid())


def test_the_state_as_data(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    process = host("x")
    (state,) = prefix_states(runtime_dir)
    data = json.loads(json.dumps(state.as_json()))
    assert {key: data[key] for key in ("file_prefix", "status", "pid", "metadata")} == {
        "file_prefix": f"{prefix}x",
        "status": "alive",
        "pid": process.pid,
        "metadata": ["ofx"],
    }
    (segment,) = data["registry"]["segments"]
    assert Path(segment["path"]) in data_files(f"{prefix}x")
    assert [(e["kind"], e["name"], e["length"]) for e in data["registry"]["entries"]] == [("memzone", "zone", 64)]


@pytest.mark.parametrize("damage", [b"", b"x", bytes(4096), bytes(32 << 20), None])
def test_a_registry_that_cannot_be_read(host: Callable[..., Any], runtime_dir: Path, prefix: str, damage: Any) -> None:
    host("x").crash()
    registry = PrefixDir(runtime_dir, f"{prefix}x").registry
    registry.unlink() if damage is None else registry.write_bytes(damage)
    (state,) = prefix_states(runtime_dir)
    assert (state.status, state.table, state.as_json()["registry"]) == ("dead", None, None)
    with pytest.raises(eal.NotFound, match="no registry that can be read"):
        find_metadata(runtime_dir, "ofx").devices()
    (piece,) = find_stale_files(runtime_dir)
    assert data_files(f"{prefix}x") <= set(piece.files)
    remove_stale_files(piece)
    assert data_files(f"{prefix}x") == set()
    assert list(runtime_dir.iterdir()) == []


def test_looking_disturbs_no_lock_of_ones_own(primary: eal.Eal, peer: Callable[..., Any], runtime_dir: Path) -> None:
    """fcntl locks are lost when any descriptor of their file is closed: looking must not open it."""
    ivshmem.metadata_create("vm0")
    for _ in range(3):
        (state,) = prefix_states(runtime_dir)
        assert (state.status, state.pid) == ("alive", os.getpid())
        assert find_stale_files(runtime_dir) == []
        find_metadata(runtime_dir, "vm0").devices()
        with pytest.raises(eal.Exists):
            ivshmem.metadata_create("vm0")
    second = peer(
        """
        import sys, eal
        try:
            eal.init(file_prefix=sys.argv[1], proc_type="primary", no_huge=True)
        except eal.InUse as error:
            print(error)
        """
    )
    assert f"live primary (pid {os.getpid()})" in second.end()


# --- metadata by name ---------------------------------------------------------------------------------------


def test_metadata_is_found_whoever_is_alive(one_of_each: Any, runtime_dir: Path, prefix: str) -> None:
    for ending in ("alive", "dead", "kept"):
        found = find_metadata(runtime_dir, f"of{ending}")
        assert found.directory.prefix == prefix + ending
        assert found.file.info.name == f"of{ending}"
        assert [device.path for device in found.devices()][-1] == found.path
        assert {Path(device.path) for device in found.devices()} == data_files(prefix + ending)
        assert find_metadata(runtime_dir, f"of{ending}", prefix + ending).path == found.path
    with pytest.raises(eal.NotFound, match=r"there are: 'ofalive', 'ofdead', 'ofkept'"):
        find_metadata(runtime_dir, "of")
    with pytest.raises(eal.NotFound, match=f"no metadata 'ofdead' of file_prefix '{prefix}kept' in .*: 'ofkept'"):
        find_metadata(runtime_dir, "ofdead", f"{prefix}kept")


def test_the_devices_are_those_that_the_host_says(primary: eal.Eal, runtime_dir: Path) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    metadata.add_memzone(eal.memzone_reserve("seen", 64, group="seen"), readonly=True)
    assert find_metadata(runtime_dir, "vm0").devices() == metadata.devices()


@pytest.mark.parametrize("damage", [b"", b"x", bytes(4096), bytes(1 << 20), b"IVSHMMET" + b"\xff" * 4096, None])
def test_metadata_that_is_damaged(host: Callable[..., Any], runtime_dir: Path, prefix: str, damage: Any) -> None:
    host("x").crash()
    (path,) = (path for path in data_files(f"{prefix}x") if path.suffix == ".md")
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(eal.NotFound if damage is None else eal.Corrupt, match=r"metadata file .*ofx\.md"):
        find_metadata(runtime_dir, "ofx")
    assert [state.status for state in prefix_states(runtime_dir)] == ["dead"]


# --- garbage ------------------------------------------------------------------------------------------------


def test_only_the_dead_are_garbage(one_of_each: Any, runtime_dir: Path, prefix: str) -> None:
    (piece,) = find_stale_files(runtime_dir)
    assert piece.directory.prefix == f"{prefix}dead"
    home = runtime_dir / f"{prefix}dead"
    assert set(piece.files) == {
        *data_files(f"{prefix}dead"),
        home / "registry",
        home / "lock",
        home / "metadata" / "ofdead.md",
    }
    alive, kept = data_files(f"{prefix}alive"), data_files(f"{prefix}kept")
    remove_stale_files(piece)
    assert not any(os.path.lexists(path) for path in piece.files)
    assert not home.exists()
    assert (data_files(f"{prefix}alive"), data_files(f"{prefix}kept")) == (alive, kept)
    assert find_stale_files(runtime_dir) == []
    one_of_each.end()


def test_garbage_of_one_prefix(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("a").crash()
    host("b").crash()
    assert [piece.directory.prefix for piece in find_stale_files(runtime_dir)] == [f"{prefix}a", f"{prefix}b"]
    assert [piece.directory.prefix for piece in find_stale_files(runtime_dir, f"{prefix}b")] == [f"{prefix}b"]
    assert find_stale_files(runtime_dir, prefix) == []


def test_a_prefix_that_came_alive_meanwhile(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("x").crash()
    (piece,) = find_stale_files(runtime_dir)
    process = host("x")
    files = data_files(f"{prefix}x")
    with pytest.raises(eal.InUse, match=rf"'{prefix}x' came alive \(pid {process.pid}\): nothing of it was removed"):
        remove_stale_files(piece)
    assert data_files(f"{prefix}x") == files
    process.end()


def test_a_prefix_that_was_kept_meanwhile(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("x").crash()
    (piece,) = find_stale_files(runtime_dir)
    host("x", "keep").end()
    files = data_files(f"{prefix}x")
    with pytest.raises(eal.InUse, match=f"'{prefix}x' was kept meanwhile: nothing of it was removed"):
        remove_stale_files(piece)
    assert data_files(f"{prefix}x") == files
    assert find_metadata(runtime_dir, "ofx").devices()


@pytest.mark.parametrize("ending", ["orphan", "map_x", "a.b", "a,b c"])
def test_data_files_without_a_folder(runtime_dir: Path, prefix: str, ending: str) -> None:
    name = prefix + ending
    directory = PrefixDir(runtime_dir, name)
    mine = {Path("/dev/shm") / directory.file_name(uuid4().hex, kind) for kind in ("seg", "md", "seg")}
    # Not ours: another runtime directory's, another user's, no uuid, another ending.
    stem = file_stem(runtime_dir)
    foreign = {
        Path("/dev/shm") / PrefixDir(runtime_dir / "other", name).file_name(uuid4().hex, "seg"),
        Path("/dev/shm") / f"ivshmem.4242.{stem.split('.')[2]}.{name}.{uuid4().hex}.seg",
        Path("/dev/shm") / f"{stem}.{name}.seg",
        Path("/dev/shm") / f"{stem}.{name}.{uuid4().hex}.txt",
    }
    for path in mine | foreign:
        path.touch()
    try:
        (piece,) = find_stale_files(runtime_dir)
        assert (piece.directory.prefix, set(piece.files)) == (name, mine)
        assert find_stale_files(runtime_dir, "another") == []
        remove_stale_files(piece)
        assert not any(path.exists() for path in mine)
        assert all(path.exists() for path in foreign)
        assert find_stale_files(runtime_dir) == []
    finally:
        for path in mine | foreign:
            path.unlink(missing_ok=True)


def test_folders_that_are_no_prefixs_are_left_alone(runtime_dir: Path) -> None:
    """A runtime directory may be one that has other things in it."""
    (runtime_dir / "thesis").mkdir()
    (runtime_dir / "thesis/draft.txt").write_text("years of work")
    (runtime_dir / "notes.txt").write_text("more of it")
    (runtime_dir / "link").symlink_to("thesis")
    assert prefix_states(runtime_dir) == []
    assert find_stale_files(runtime_dir) == []
    with eal.init(file_prefix="thesis2", no_huge=True):
        ivshmem.metadata_create("draft")
    assert (runtime_dir / "thesis/draft.txt").read_text() == "years of work"


def test_a_segment_that_is_no_file_of_ours_is_not_removed(
    host: Callable[..., Any], runtime_dir: Path, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry names files; one that was written to by hand, or damaged, must not lead elsewhere."""
    from dataclasses import replace

    from eal.memory.registry import open_registry

    host("x").crash()
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    directory = PrefixDir(runtime_dir, f"{prefix}x")
    registry = open_registry(directory.registry)
    table = registry.table
    record = replace(table.segments[0], uuid=uuid4(), path=str(precious))
    registry._file.publish(replace(table, segments=(*table.segments, record)))
    registry.close()
    (piece,) = find_stale_files(runtime_dir)
    assert precious not in piece.files
    remove_stale_files(piece)
    assert precious.exists()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777])
def test_a_runtime_directory_that_others_can_write_to(runtime_dir: Path, mode: int) -> None:
    """Whoever can plant a registry there decides what is removed, or given to a VM."""
    runtime_dir.chmod(mode)
    for look in (prefix_states, find_stale_files, lambda root: find_metadata(root, "vm0")):
        with pytest.raises(eal.Denied, match=f"{runtime_dir} must not be writable by other users: run chmod go-w"):
            look(runtime_dir)


@pytest.mark.root
def test_a_runtime_directory_of_another_user(runtime_dir: Path) -> None:
    os.chown(runtime_dir, 65534, 65534)
    for look in (prefix_states, find_stale_files, lambda root: find_metadata(root, "vm0")):
        with pytest.raises(eal.Denied, match=f"{runtime_dir} must belong to user 0, not to user 65534"):
            look(runtime_dir)


def test_a_runtime_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for look in (prefix_states, find_stale_files, lambda root: find_metadata(root, "vm0")):
        with pytest.raises(eal.Denied, match="must be a directory"):
            look(tmp_path / "file")
        with pytest.raises(eal.Denied, match=r"cannot read .*: Not a directory"):
            look(tmp_path / "file" / "below")


def test_leftovers_are_marked_retired_first(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    """A VM that still holds a segment can see that its host has given it up."""
    from eal.memory.segment import open_segment

    host("x").crash()
    (state,) = prefix_states(runtime_dir)
    assert state.table is not None
    held = open_segment(state.table.segments[0])
    assert not held.retired
    remove_stale_files(find_stale_files(runtime_dir)[0])
    assert held.retired
    held.close()
    assert leftovers.orphans(runtime_dir) == {}
