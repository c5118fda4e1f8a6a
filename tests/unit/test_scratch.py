# SPDX-License-Identifier: BSD-3-Clause
"""Scratch directories: those of killed owners are removed at the next start, and no other ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from ivshmem import scratch
from ivshmem.emulate.bus import EmulatedBus
from ivshmem.emulate.runner import guest_environment
from ivshmem.scratch import Scratch, stale_folders

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(scratch, "_LOCK_DELAY", 0.0)
    return folder


OWNER = "import sys, time; from ivshmem.scratch import Scratch; print(Scratch(sys.argv[2]).path, flush=True); input()"


@pytest.mark.parametrize("kind", ["bus", "guest", "vm"])
def test_next_start_removes_folder_of_dead_owner(peer: Callable[..., Any], own_tmp: Path, kind: str) -> None:
    owner = peer(OWNER, kind)
    folder = Path(owner.hear())
    (folder / "file").touch()
    with EmulatedBus():
        assert folder.exists()
    owner.crash()
    assert stale_folders() == [folder]
    with EmulatedBus():
        assert not folder.exists()
    assert list(own_tmp.iterdir()) == []


def test_foreign_new_or_differently_named_entries_are_not_stale(own_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another user, of an earlier release, too young, a file, a link, or with another name."""
    foreign = own_tmp / "ivshmem-vm-12-foreign"
    for path in (foreign, own_tmp / "ivshmem-vm-abcd1234", own_tmp / "ivshmem-x-12-abcd", own_tmp / "other-12-abcd"):
        path.mkdir()
    os.chown(foreign, 12345, 12345) if os.geteuid() == 0 else foreign.rmdir()
    (own_tmp / "ivshmem-vm-12-file").touch()
    (own_tmp / "ivshmem-vm-12-link").symlink_to(own_tmp / "other-12-abcd")
    before = sorted(own_tmp.iterdir())
    assert stale_folders() == []
    with EmulatedBus():
        pass
    assert sorted(own_tmp.iterdir()) == before
    young = own_tmp / "ivshmem-vm-12-fresh"
    young.mkdir()
    assert stale_folders() == [young]
    monkeypatch.setattr(scratch, "_LOCK_DELAY", 60.0)
    assert stale_folders() == []


def test_folder_of_live_owner_is_not_stale(own_tmp: Path) -> None:
    mine = Scratch("guest")
    with guest_environment([]) as env:
        assert stale_folders() == []
        for folder in own_tmp.iterdir():
            scratch.remove(folder)
        assert mine.path.exists()
        assert Path(env["EAL_RUNTIME_DIR"]).exists()
    mine.close()
    mine.close()
    assert list(own_tmp.iterdir()) == []


GUEST = """
import sys, time, eal
with eal.init(file_prefix=sys.argv[1] + "own", no_huge=True):
    eal.memzone_reserve("own", 64)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_clean_removes_folder_after_emulator_and_guest_died(primary: eal.Eal, prefix: str, own_tmp: Path) -> None:
    """While the guest of a killed `ivshmem emulate` lives, its directory is not stale."""
    ivshmem.metadata_create("vm0").add_memzone(eal.memzone_reserve("zone", 64))
    command = [IVSHMEM, "emulate", "vm0", "--", sys.executable, "-P", "-c", GUEST, prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        (folder,) = own_tmp.iterdir()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (guest,) = map(int, children)
        process.kill()
        process.wait()
        assert stale_folders() == []
        os.kill(guest, 9)
        while Path(f"/proc/{guest}").exists() and "Z" not in Path(f"/proc/{guest}/stat").read_text():
            time.sleep(0.01)
    assert list(Path("/dev/shm").glob(f"*.{prefix}own.*")) != []
    time.sleep(2.1)  # a younger directory is not stale
    listed = subprocess.run([IVSHMEM, "clean", "--json", "--dry-run"], check=True, capture_output=True, text=True)
    assert json.loads(listed.stdout) == [{"file_prefix": None, "files": [str(folder)]}]
    done = subprocess.run([IVSHMEM, "clean", "--yes"], check=True, capture_output=True, text=True)
    assert str(folder) in done.stdout
    assert list(own_tmp.iterdir()) == []
    assert list(Path("/dev/shm").glob(f"*.{prefix}own.*")) == []
