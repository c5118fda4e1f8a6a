# SPDX-License-Identifier: BSD-3-Clause
"""Scratch folders: what a killed emulator or VM owner left goes at the next start, and nothing else does."""

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
from ivshmem.emulate.runner import EmulatedBus, guest_environment
from ivshmem.scratch import Scratch, abandoned

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(scratch, "_FRESH", 0.0)
    return folder


OWNER = "import sys, time; from ivshmem.scratch import Scratch; print(Scratch(sys.argv[2]).path, flush=True); input()"


@pytest.mark.parametrize("kind", ["bus", "guest", "vm"])
def test_a_dead_ones_folder_goes_at_the_next_start(peer: Callable[..., Any], own_tmp: Path, kind: str) -> None:
    owner = peer(OWNER, kind)
    folder = Path(owner.hear())
    (folder / "file").touch()
    with EmulatedBus():
        assert folder.exists()
    owner.crash()
    assert abandoned() == [folder]
    with EmulatedBus():
        assert not folder.exists()
    assert list(own_tmp.iterdir()) == []


def test_what_is_not_ours_or_fresh_or_old_stays(own_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another user, of an earlier release, just made, a file, a link, or of another name."""
    foreign = own_tmp / "ivshmem-vm-12-foreign"
    for path in (foreign, own_tmp / "ivshmem-vm-abcd1234", own_tmp / "ivshmem-x-12-abcd", own_tmp / "other-12-abcd"):
        path.mkdir()
    os.chown(foreign, 12345, 12345) if os.geteuid() == 0 else foreign.rmdir()
    (own_tmp / "ivshmem-vm-12-file").touch()
    (own_tmp / "ivshmem-vm-12-link").symlink_to(own_tmp / "other-12-abcd")
    before = sorted(own_tmp.iterdir())
    assert abandoned() == []
    with EmulatedBus():
        pass
    assert sorted(own_tmp.iterdir()) == before
    fresh = own_tmp / "ivshmem-vm-12-fresh"
    fresh.mkdir()
    assert abandoned() == [fresh]
    monkeypatch.setattr(scratch, "_FRESH", 60.0)
    assert abandoned() == []


def test_a_living_ones_folder_stays(own_tmp: Path) -> None:
    mine = Scratch("guest")
    with guest_environment([]) as env:
        assert abandoned() == []
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


def test_a_killed_emulator(primary: eal.Eal, prefix: str, own_tmp: Path) -> None:
    """Its guest goes on, and so its folder stays; both gone, the guest's memory goes as well."""
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
        assert abandoned() == []
        os.kill(guest, 9)
        while Path(f"/proc/{guest}").exists() and "Z" not in Path(f"/proc/{guest}/stat").read_text():
            time.sleep(0.01)
    assert list(Path("/dev/shm").glob(f"*.{prefix}own.*")) != []
    time.sleep(2.1)  # what is fresh is not taken for dead
    listed = subprocess.run([IVSHMEM, "clean", "--json", "--dry-run"], check=True, capture_output=True, text=True)
    assert json.loads(listed.stdout) == [{"file_prefix": None, "files": [str(folder)]}]
    done = subprocess.run([IVSHMEM, "clean", "--yes"], check=True, capture_output=True, text=True)
    assert str(folder) in done.stdout
    assert list(own_tmp.iterdir()) == []
    assert list(Path("/dev/shm").glob(f"*.{prefix}own.*")) == []
