# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem up` and `down` as processes: files held by a QEMU, signals and failures during `up`, the progress bar."""

from __future__ import annotations

import grp
import json
import os
import pty
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ivshmem.cli import cli
from ivshmem.plan.record import PlanRecord

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))
PLAN = """
file_prefix = "{prefix}"
no_huge = true
[groups.vm]
mode = 0o640
user = "nobody"
group = "nogroup"
[zones.settings]
length = 4096
group = "vm"
[rings.tx]
count = 64
[metadata.vm0]
zones = ["settings"]
rings = ["tx"]
[vms.web]
metadata = ["vm0"]
"""


@pytest.fixture
def plan(runtime_dir: Path, prefix: str, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return `plan(more)`: write PLAN and more text to a file, return its path. Run `down` at the end."""

    def write(more: str = "", mode: int = 0o640) -> Path:
        text = PLAN.format(prefix=prefix).replace("0o640", oct(mode))
        (tmp_path / "plan.toml").write_text(text + more)
        return tmp_path / "plan.toml"

    yield write
    subprocess.run([IVSHMEM, "down", "--file-prefix", prefix, "--force"], capture_output=True, check=True)


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IVSHMEM, *map(str, words)], capture_output=True, text=True, timeout=60)


def files(prefix: str) -> list[Path]:
    return sorted(path for path in Path("/dev/shm").iterdir() if f".{prefix}." in path.name)


def all_files(prefix: str, runtime_dir: Path) -> set[str]:
    """Return the paths of the data files and of the runtime directory, without lock files."""
    return {str(path) for path in (*files(prefix), *runtime_dir.rglob("*")) if path.name != "lock"}


# --- files held by a VM -------------------------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.root
def test_down_refuses_files_held_by_qemu(plan: Callable[..., Path], prefix: str) -> None:
    args = json.loads(command("up", plan(), "--json").stdout)["vms"]["web"]
    base = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-qmp", "stdio"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*base, *args], stdin=pipe, stdout=pipe, text=True) as qemu:
        try:
            assert qemu.stdout
            assert "QMP" in qemu.stdout.readline()  # QEMU prints its greeting after it has mapped every backend
            before = files(prefix)
            refused = command("down", plan())
            assert (refused.returncode, refused.stdout) == (1, "")
            assert f"(pid {qemu.pid})" in refused.stderr
            assert "qemu" in refused.stderr
            assert files(prefix) == before
            forced = command("down", plan(), "--force")
            assert (forced.returncode, files(prefix)) == (0, [])
            assert f"(pid {qemu.pid})" in forced.stderr
            assert qemu.poll() is None
        finally:
            qemu.kill()


# --- signals and failures -----------------------------------------------------------------------------------

# The installed command. It reports that it has reached one step for a segment of 4 MiB, and sleeps there.
SLOW = """
import sys, time
from eal.memory import heap, segment_file
from ivshmem import cli
def pause_after(step, length_of):
    def paused(*args, **keywords):
        result = step(*args, **keywords)
        if length_of(args) >= 4 << 20:
            print("here", flush=True)
            time.sleep(60)
        return result
    return paused
if sys.argv.pop(1) == "pages":  # the pages are allocated, the file is not complete
    segment_file._allocate = pause_after(segment_file._allocate, lambda args: args[2].length)
else:  # the file is complete, the registry does not refer to it
    heap.create_segment = pause_after(heap.create_segment, lambda args: args[3])
sys.argv[0] = "ivshmem"
cli.main()
"""


@pytest.mark.root
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(("number", "place"), [(signal.SIGTERM, "pages"), (signal.SIGINT, "file")])
def test_signal_during_up_restores_previous_state(
    plan: Callable[..., Path], prefix: str, runtime_dir: Path, number: signal.Signals, place: str, applied: bool
) -> None:
    if applied:
        assert command("up", plan()).returncode == 0
    before = all_files(prefix, runtime_dir)
    more = '[groups.first]\nsize = "1M"\n[groups.slow]\nsize = "4M"\n[rings.new]\ncount = 64\ngroup = "first"\n'
    words = [sys.executable, "-P", "-c", SLOW, place, "up", str(plan(more))]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as up:
        try:
            assert up.stdout
            assert up.stdout.readline() == "here\n"
            assert len(files(prefix)) > len([path for path in before if path.startswith("/dev/shm")])
            up.send_signal(number)
            _, stderr = up.communicate(timeout=30)
        finally:
            up.kill()
    assert up.returncode == 1
    assert "Traceback" not in stderr
    now = all_files(prefix, runtime_dir)
    assert now == before if applied else files(prefix) == []
    again = command("up", plan())
    assert (again.returncode, again.stdout.startswith("no change\n")) == (0, applied), again.stderr


@pytest.mark.root
@pytest.mark.parametrize("applied", [False, True])
def test_failure_after_all_steps_of_up_restores_previous_state(
    plan: Callable[..., Path], prefix: str, runtime_dir: Path, applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments, objects and metadata files exist when the last step, writing the record, fails."""
    if applied:
        assert command("up", plan()).returncode == 0
    before = all_files(prefix, runtime_dir)
    more = '[groups.first]\nsize = "1M"\n[rings.new]\ncount = 64\ngroup = "first"\n[metadata.vm1]\nrings = ["new"]\n'
    made: list[int] = []

    def fail(*_: object, **__: object) -> Any:
        made.append(len(files(prefix)))
        raise OSError(28, "No space left on device", "here")

    monkeypatch.setattr(PlanRecord, "save", fail)
    result = CliRunner().invoke(cli, ["up", str(plan(more, mode=0o660))])
    assert (result.exit_code, "No space left on device" in result.stderr) == (1, True), result.output
    assert made
    assert made[0] > len([path for path in before if path.startswith("/dev/shm")])
    assert all_files(prefix, runtime_dir) == before if applied else files(prefix) == []
    assert 0o660 not in [path.stat().st_mode & 0o777 for path in files(prefix)]


# --- owner, mode and progress -------------------------------------------------------------------------------


@pytest.mark.root
def test_up_sets_and_updates_owner_and_mode(plan: Callable[..., Path], prefix: str) -> None:
    done = command("up", plan())
    assert done.returncode == 0, done.stderr
    (segment,) = [path for path in files(prefix) if path.stat().st_mode & 0o777 == 0o640]
    found = segment.stat()
    assert pwd.getpwuid(found.st_uid).pw_name == "nobody"
    assert grp.getgrgid(found.st_gid).gr_name == "nogroup"
    assert command("up", plan(mode=0o660)).returncode == 0
    now = segment.stat()
    assert (now.st_ino, now.st_mode & 0o777, now.st_uid) == (found.st_ino, 0o660, found.st_uid)
    others = [path.stat() for path in files(prefix) if path != segment and path.suffix == ".seg"]
    assert [(one.st_uid, one.st_mode & 0o777) for one in others] == [(os.geteuid(), 0o600)]


@pytest.mark.root
def test_up_draws_progress_bar_only_on_a_terminal(plan: Callable[..., Path], prefix: str) -> None:
    words = [IVSHMEM, "up", str(plan('[groups.large]\nsize = "64M"\n'))]
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=slave, env=environment, text=True) as up:
        os.close(slave)
        shown = b""
        deadline = time.monotonic() + 30
        while select.select([master], [], [], max(0, deadline - time.monotonic()))[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:  # the command has closed its side
                break
        out, _ = up.communicate(timeout=30)
    os.close(master)
    assert up.returncode == 0
    assert b"allocating pages" in shown
    assert b"MiB" in shown
    assert "allocating pages" not in out
    assert "QEMU options of VM web" in out
    quiet = command("up", plan('[groups.large]\nsize = "64M"\n[groups.more]\nsize = "64M"\n'))
    assert (quiet.returncode, quiet.stderr) == (0, "")
