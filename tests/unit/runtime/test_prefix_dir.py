# SPDX-License-Identifier: BSD-3-Clause
"""eal.runtime.prefix_dir: location, ownership and mode of the runtime directory."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import pytest

import eal
from eal.runtime import prefix_dir
from eal.runtime.prefix_dir import PrefixDir, make_private


@pytest.mark.parametrize(
    ("uid", "given", "session", "expected"),
    [
        (0, None, None, "/run/ivshmem"),
        (0, None, "/run/user/0", "/run/ivshmem"),
        (0, "/given", None, "/given"),
        (1000, "/given", "/run/user/1000", "/given"),
        (1000, None, "/run/user/1000", "/run/user/1000/ivshmem"),
        (1000, None, None, "/tmp/ivshmem-1000"),
    ],
)
def test_runtime_dir_depends_on_environment_and_user(
    monkeypatch: pytest.MonkeyPatch, uid: int, given: str | None, session: str | None, expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/tmp")
    for name, value in (("EAL_RUNTIME_DIR", given), ("XDG_RUNTIME_DIR", session)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert prefix_dir.runtime_dir() == Path(expected)


def test_directories_and_files_are_private(primary: eal.Eal, runtime_dir: Path) -> None:
    primary.memzone_reserve("z", 64)
    folders = [runtime_dir, primary.directory.path, primary.directory.metadata]
    assert [stat.S_IMODE(os.stat(folder).st_mode) for folder in folders] == [0o700] * 3
    for file in (primary.directory.lock, primary.directory.registry):
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_init_creates_runtime_directory_with_parents(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str
) -> None:
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(tmp_path / "a" / "b"))
    with eal.init(file_prefix=prefix, no_huge=True):
        assert (tmp_path / "a" / "b" / prefix / "registry").exists()


def test_relative_runtime_directory_is_unaffected_by_chdir(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EAL_RUNTIME_DIR", "run")
    with eal.init(file_prefix=prefix, no_huge=True):
        monkeypatch.chdir("/")
        eal.memzone_reserve("z", 64)
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
def test_runtime_directory_writable_by_others_raises_denied(runtime_dir: Path, prefix: str, mode: int) -> None:
    runtime_dir.chmod(mode)
    with pytest.raises(eal.Denied, match=f"{runtime_dir} must not be writable by other users: run chmod go-w"):
        eal.init(file_prefix=prefix, no_huge=True)
    assert os.listdir(runtime_dir) == []


@pytest.mark.root
def test_runtime_directory_of_another_user_raises_denied(runtime_dir: Path, prefix: str) -> None:
    os.chown(runtime_dir, 65534, 65534)
    with pytest.raises(eal.Denied, match=r"must belong to user 0, not to user 65534: set EAL_RUNTIME_DIR"):
        eal.init(file_prefix=prefix, no_huge=True)


@pytest.mark.root
def test_prefix_directory_of_another_user_raises_denied(runtime_dir: Path, prefix: str) -> None:
    (runtime_dir / prefix).mkdir()
    os.chown(runtime_dir / prefix, 65534, 65534)
    with pytest.raises(PermissionError):
        eal.init(file_prefix=prefix, no_huge=True)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_make_private_on_link_or_file_raises_denied(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere") if kind == "link" else path.touch()
    with pytest.raises(eal.Denied, match=r"must be a directory|cannot create"):
        make_private(path)


@pytest.mark.parametrize("name", ["lock", "registry"])
def test_init_does_not_follow_planted_link(runtime_dir: Path, prefix: str, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.write_text("unchanged")
    (runtime_dir / prefix).mkdir(mode=0o700)
    (runtime_dir / prefix / name).symlink_to(target)
    with contextlib.suppress(eal.EalError):
        eal.init(file_prefix=prefix, no_huge=True).close()
    assert target.read_text() == "unchanged"


def test_file_name_contains_user_directory_prefix_and_uuid(runtime_dir: Path, tmp_path: Path) -> None:
    here = PrefixDir(runtime_dir, "p").file_name("0" * 32, "seg")
    there = PrefixDir(tmp_path, "p").file_name("0" * 32, "seg")
    assert here.startswith(f"ivshmem.{os.geteuid()}.")
    assert here.endswith(f".p.{'0' * 32}.seg")
    assert here != there  # the name includes the runtime directory


def test_primary_removes_stale_files_of_its_runtime_directory_only(
    runtime_dir: Path, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = eal.init(file_prefix=prefix, no_huge=True)
    path = Path(first.memzone_reserve("z", 64).segment.path)
    first.detach()
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(tmp_path / "other"))
    with eal.init(file_prefix=prefix, proc_type="primary", no_huge=True):
        assert path.exists()
    assert path.exists()
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(runtime_dir))
    eal.init(file_prefix=prefix, proc_type="primary", no_huge=True).close()
    assert not path.exists()
