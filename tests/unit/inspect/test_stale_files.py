# SPDX-License-Identifier: BSD-3-Clause
"""Stale files of dead prefixes: which files are found, and which are removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eal
import ivshmem
from eal.lifecycle import cleanup
from eal.memory.registry import open_registry
from eal.memory.segment import open_segment
from eal.runtime.prefix_dir import PrefixDir, file_stem
from ivshmem.inspect.prefixes import prefix_states
from ivshmem.inspect.stale_files import find_stale_files, remove_stale_files
from ivshmem.metadata.lookup import find_metadata
from tests.prefix_hosts import data_files


def test_only_dead_prefix_has_stale_files(live_host: Any, runtime_dir: Path, prefix: str) -> None:
    (stale,) = find_stale_files(runtime_dir)
    assert stale.directory.prefix == f"{prefix}dead"
    directory = runtime_dir / f"{prefix}dead"
    assert set(stale.files) == {
        *data_files(f"{prefix}dead"),
        directory / "registry",
        directory / "lock",
        directory / "metadata" / "ofdead.md",
    }
    alive, kept = data_files(f"{prefix}alive"), data_files(f"{prefix}kept")
    remove_stale_files(stale)
    assert not any(os.path.lexists(path) for path in stale.files)
    assert not directory.exists()
    assert (data_files(f"{prefix}alive"), data_files(f"{prefix}kept")) == (alive, kept)
    assert find_stale_files(runtime_dir) == []
    live_host.end()


def test_find_stale_files_of_selected_prefix(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("a").crash()
    host("b").crash()
    assert [stale.directory.prefix for stale in find_stale_files(runtime_dir)] == [f"{prefix}a", f"{prefix}b"]
    assert [stale.directory.prefix for stale in find_stale_files(runtime_dir, f"{prefix}b")] == [f"{prefix}b"]
    assert find_stale_files(runtime_dir, prefix) == []


def test_remove_from_restarted_prefix_raises_in_use(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("x").crash()
    (stale,) = find_stale_files(runtime_dir)
    process = host("x")
    files = data_files(f"{prefix}x")
    with pytest.raises(eal.InUse, match=rf"'{prefix}x' is in use by pid {process.pid}; nothing was removed"):
        remove_stale_files(stale)
    assert data_files(f"{prefix}x") == files
    process.end()


def test_remove_from_kept_prefix_raises_in_use(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("x").crash()
    (stale,) = find_stale_files(runtime_dir)
    host("x", "keep").end()
    files = data_files(f"{prefix}x")
    with pytest.raises(eal.InUse, match=f"'{prefix}x' was kept in the meantime; nothing was removed"):
        remove_stale_files(stale)
    assert data_files(f"{prefix}x") == files
    assert find_metadata(runtime_dir, "ofx").devices()


@pytest.mark.parametrize("ending", ["orphan", "map_x", "a.b", "a,b c"])
def test_data_files_without_prefix_directory_are_removed(runtime_dir: Path, prefix: str, ending: str) -> None:
    name = prefix + ending
    directory = PrefixDir(runtime_dir, name)
    mine = {Path("/dev/shm") / directory.file_name(uuid4().hex, kind) for kind in ("seg", "md", "seg")}
    # Other files: of another runtime directory, of another user, without a uuid, with another suffix.
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
        (stale,) = find_stale_files(runtime_dir)
        assert (stale.directory.prefix, set(stale.files)) == (name, mine)
        assert find_stale_files(runtime_dir, "another") == []
        remove_stale_files(stale)
        assert not any(path.exists() for path in mine)
        assert all(path.exists() for path in foreign)
        assert find_stale_files(runtime_dir) == []
    finally:
        for path in mine | foreign:
            path.unlink(missing_ok=True)


def test_other_files_in_runtime_directory_are_ignored(runtime_dir: Path) -> None:
    """A runtime directory may also contain files of the user."""
    (runtime_dir / "thesis").mkdir()
    (runtime_dir / "thesis/draft.txt").write_text("years of work")
    (runtime_dir / "notes.txt").write_text("more of it")
    (runtime_dir / "link").symlink_to("thesis")
    assert prefix_states(runtime_dir) == []
    assert find_stale_files(runtime_dir) == []
    with eal.init(file_prefix="thesis2", no_huge=True):
        ivshmem.metadata_create("draft")
    assert (runtime_dir / "thesis/draft.txt").read_text() == "years of work"


def test_registry_naming_other_file_does_not_remove_it(
    host: Callable[..., Any], runtime_dir: Path, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged or manipulated registry must not cause the removal of other files."""
    host("x").crash()
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    directory = PrefixDir(runtime_dir, f"{prefix}x")
    registry = open_registry(directory.registry)
    table = registry.table
    record = replace(table.segments[0], uuid=uuid4(), path=str(precious))
    registry._file.publish(replace(table, segments=(*table.segments, record)))
    registry.close()
    (stale,) = find_stale_files(runtime_dir)
    assert precious not in stale.files
    remove_stale_files(stale)
    assert precious.exists()


def test_remove_marks_segments_retired(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    """A VM that still maps a segment can read in its header that the host no longer serves it."""
    host("x").crash()
    (state,) = prefix_states(runtime_dir)
    assert state.table is not None
    held = open_segment(state.table.segments[0])
    assert not held.retired
    remove_stale_files(find_stale_files(runtime_dir)[0])
    assert held.retired
    held.close()
    assert cleanup.orphans(runtime_dir) == {}
