# SPDX-License-Identifier: BSD-3-Clause
"""Emulated guests: the environment of the guest, its exit status, and the removal of its files."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal.pci.device import scan
from ivshmem.emulate.runner import guest_environment, run

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary directory of this process."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def file_of(folder: Path, size: int, name: str = "bar") -> Path:
    path = folder / name
    path.write_bytes(bytes(size))
    return path


# --- guest_environment --------------------------------------------------------------------------------------


def test_guest_environment_has_bus_and_private_runtime_dir(tmp_path: Path, own_tmp: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with guest_environment([file]) as env:
        assert sorted(env) == ["EAL_RUNTIME_DIR", "EAL_SYSFS_ROOT"]
        assert [device.resource.resolve() for device in scan(env["EAL_SYSFS_ROOT"])] == [file]
        run_dir = Path(env["EAL_RUNTIME_DIR"])
        assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
        assert list(run_dir.iterdir()) == []
    assert list(own_tmp.iterdir()) == []


def test_environments_of_two_guests_are_disjoint(tmp_path: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with guest_environment([file]) as first, guest_environment([file]) as second:
        assert set(first.values()).isdisjoint(second.values())


# Creates a segment, a metadata file and a ring, and is killed.
CRASHING_GUEST = """
import os, eal, ivshmem
made = eal.init(file_prefix=os.environ["GUEST_PREFIX"], no_huge=True)
metadata = ivshmem.metadata_create("own")
metadata.add_ring(eal.ring_create("ring", 8))
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("fault", [None, ZeroDivisionError, KeyboardInterrupt])
def test_guest_environment_removes_files_of_killed_guest(
    peer: Callable[..., Any], prefix: str, monkeypatch: pytest.MonkeyPatch, own_tmp: Path, fault: Any
) -> None:
    def crash_guest() -> None:
        with guest_environment([]) as env, monkeypatch.context() as patch:
            for name, value in {**env, "GUEST_PREFIX": prefix}.items():
                patch.setenv(name, value)
            peer(CRASHING_GUEST).wait()
            assert len(list(Path("/dev/shm").glob(f"*.{prefix}.*"))) == 2
            if fault is not None:
                raise fault

    if fault is None:
        crash_guest()
    else:
        with pytest.raises(fault):
            crash_guest()
    assert list(Path("/dev/shm").glob(f"*.{prefix}.*")) == []
    assert list(own_tmp.iterdir()) == []


# --- run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def metadata(primary: eal.Eal) -> ivshmem.Metadata:
    made = ivshmem.metadata_create("vm0")
    made.add_memzone(eal.memzone_reserve("zone", 64))
    return made


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_run_returns_exit_status_of_command(
    metadata: ivshmem.Metadata, script: str, status: int, own_tmp: Path
) -> None:
    assert run(metadata.devices(), ["sh", "-c", script]) == status
    assert list(own_tmp.iterdir()) == []


def test_guest_finds_its_share(metadata: ivshmem.Metadata, tmp_path: Path) -> None:
    script = "import eal, sys\nwith eal.init():\n eal.memzone_lookup('zone').buf[:5] = b'hello'"
    assert run(metadata.devices(), [sys.executable, "-P", "-c", script]) == 0
    assert bytes(eal.memzone_lookup("zone").buf[:5]) == b"hello"


def test_run_adds_two_variables_to_given_environment(metadata: ivshmem.Metadata, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = {"PATH": os.environ["PATH"], "OUT": str(out), "EAL_SYSFS_ROOT": "/nowhere"}
    assert run(metadata.devices(), ["sh", "-c", 'env >"$OUT"'], given) == 0
    seen = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert {"PATH", "OUT", "EAL_SYSFS_ROOT", "EAL_RUNTIME_DIR"} <= seen.keys()
    assert seen.keys() <= {*given, "EAL_RUNTIME_DIR", "PWD", "OLDPWD", "SHLVL", "_"}
    assert seen["EAL_SYSFS_ROOT"] != "/nowhere"
    assert given["EAL_SYSFS_ROOT"] == "/nowhere"


def test_run_of_missing_command_raises_os_error(metadata: ivshmem.Metadata, own_tmp: Path) -> None:
    for command, error in (["no-such-command"], FileNotFoundError), (["/"], PermissionError):
        with pytest.raises(error):
            run(metadata.devices(), command)
    assert list(own_tmp.iterdir()) == []
