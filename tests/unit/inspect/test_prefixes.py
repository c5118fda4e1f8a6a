# SPDX-License-Identifier: BSD-3-Clause
"""States of prefixes, read from the files of a runtime directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.inspect.prefixes import prefix_states
from ivshmem.inspect.stale_files import find_stale_files, remove_stale_files
from ivshmem.metadata.lookup import find_metadata
from tests.prefix_hosts import data_files


def test_empty_runtime_directory_has_no_prefixes(runtime_dir: Path, tmp_path: Path) -> None:
    for root in (runtime_dir, tmp_path / "not created yet"):
        assert prefix_states(root) == []
        assert find_stale_files(root) == []
        with pytest.raises(eal.NotFound, match=f"file_prefix 'x' has no files in {root}"):
            prefix_states(root, "x")
        with pytest.raises(eal.NotFound, match=r"no metadata 'vm0' in .*; existing: none"):
            find_metadata(root, "vm0")
    assert not (tmp_path / "not created yet").exists()


def test_states_of_live_dead_and_kept_prefixes(live_host: Any, runtime_dir: Path, prefix: str) -> None:
    states = prefix_states(runtime_dir)
    assert [(state.prefix, state.status, state.pid) for state in states] == [
        (f"{prefix}alive", "alive", live_host.pid),
        (f"{prefix}dead", "dead", None),
        (f"{prefix}kept", "kept", None),
    ]
    for state in states:
        assert state.table is not None
        assert [entry.name for entry in state.table.entries] == ["zone"]
    assert [state.prefix for state in prefix_states(runtime_dir, f"{prefix}dead")] == [f"{prefix}dead"]
    with pytest.raises(eal.NotFound):
        prefix_states(runtime_dir, prefix)


def test_kept_prefix_with_live_process_is_alive(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("x", "keep").end()
    with eal.init(file_prefix=f"{prefix}x", no_huge=True):
        (state,) = prefix_states(runtime_dir)
        assert (state.status, state.kept, state.pid) == ("alive", True, os.getpid())


def test_state_as_json_lists_pid_metadata_and_registry(
    host: Callable[..., Any], runtime_dir: Path, prefix: str
) -> None:
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
def test_unreadable_registry_leaves_prefix_dead_and_removable(
    host: Callable[..., Any], runtime_dir: Path, prefix: str, damage: Any
) -> None:
    host("x").crash()
    registry = PrefixDir(runtime_dir, f"{prefix}x").registry
    registry.unlink() if damage is None else registry.write_bytes(damage)
    (state,) = prefix_states(runtime_dir)
    assert (state.status, state.table, state.as_json()["registry"]) == ("dead", None, None)
    with pytest.raises(eal.NotFound, match="no readable registry"):
        find_metadata(runtime_dir, "ofx").devices()
    (stale,) = find_stale_files(runtime_dir)
    assert data_files(f"{prefix}x") <= set(stale.files)
    remove_stale_files(stale)
    assert data_files(f"{prefix}x") == set()
    assert list(runtime_dir.iterdir()) == []


def test_reading_own_prefix_keeps_its_locks(primary: eal.Eal, peer: Callable[..., Any], runtime_dir: Path) -> None:
    """Closing any descriptor of a file drops its fcntl locks, so this process must not open its own lock file."""
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


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777])
def test_runtime_directory_writable_by_others_raises_denied(runtime_dir: Path, mode: int) -> None:
    """Another user could place a registry there, and so select the files that are removed or passed to a VM."""
    runtime_dir.chmod(mode)
    for read in (prefix_states, find_stale_files, lambda root: find_metadata(root, "vm0")):
        with pytest.raises(eal.Denied, match=f"{runtime_dir} must not be writable by other users: run chmod go-w"):
            read(runtime_dir)


@pytest.mark.root
def test_runtime_directory_of_another_user_raises_denied(runtime_dir: Path) -> None:
    os.chown(runtime_dir, 65534, 65534)
    for read in (prefix_states, find_stale_files, lambda root: find_metadata(root, "vm0")):
        with pytest.raises(eal.Denied, match=f"{runtime_dir} must belong to user 0, not to user 65534"):
            read(runtime_dir)


def test_runtime_directory_that_is_a_file_raises_denied(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for read in (prefix_states, find_stale_files, lambda root: find_metadata(root, "vm0")):
        with pytest.raises(eal.Denied, match="must be a directory"):
            read(tmp_path / "file")
        with pytest.raises(eal.Denied, match=r"cannot read .*: Not a directory"):
            read(tmp_path / "file" / "below")
