# SPDX-License-Identifier: BSD-3-Clause
"""Hardship: guests that are slow, or are killed and started again, and hosts that bear it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import eal
import ivshmem
from eal import RingFlag
from ivshmem.emulate.fault_injection import Hardship
from ivshmem.emulate.runner import run

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))
PYTHON = [sys.executable, "-P", "-c"]


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, for this process and those that it starts."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def vm0(primary: eal.Eal) -> ivshmem.Metadata:
    made = ivshmem.metadata_create("vm0")
    made.add_memzone(eal.memzone_reserve("zone", 64))
    return made


# Uses 60 ms of a processor, and says how long that took by the clock.
WORKS = "import time; b = time.monotonic()\nwhile time.process_time() < 0.06: pass\nprint(time.monotonic() - b)"


@pytest.mark.parametrize("script", ['exec "$@"', '"$@"; exit $?'])
def test_slow_is_so_many_times_slower(own_tmp: Path, script: str) -> None:
    """The command, and what it starts."""
    out = own_tmp / "out"
    began = time.monotonic()
    assert run([], ["sh", "-c", f'{{ {script}; }} > "$0"', str(out), *PYTHON, WORKS], slow=10) == 0
    took = float(out.read_text())
    assert 0.2 < took < time.monotonic() - began  # what it used before the clock was read is not in it
    out.unlink()
    assert list(own_tmp.iterdir()) == []


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_stopped(vm0: ivshmem.Metadata, own_tmp: Path, number: int) -> None:
    """Neither the guest nor what it leaves running, not even when `ivshmem emulate` itself is killed."""
    script = 'trap "" HUP; (trap "" INT TERM HUP; exec sleep 60) & echo $$ $!; trap - HUP; wait; wait'
    command = [IVSHMEM, "emulate", "--slow", "10", "vm0", "--", "sh", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout
        guest, other = map(int, process.stdout.readline().split())
        try:
            time.sleep(0.3)  # some turns
            process.send_signal(number)
            status = process.wait(15)
            deadline = time.monotonic() + 10
            while state_of(other) == "T":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            if number == signal.SIGKILL:
                assert not Path(f"/proc/{guest}").exists() or state_of(guest) != "T"
            else:
                assert status == 128 + number
                assert not Path(f"/proc/{guest}").exists()
                assert list(own_tmp.iterdir()) == []
        finally:
            process.kill()  # else a failure would wait for it for ever
            os.kill(other, signal.SIGKILL)


def test_killed_and_started_again(own_tmp: Path) -> None:
    out = own_tmp / "out"
    script = 'echo "$EAL_RUNTIME_DIR" >> "$0"; sleep 60 & wait'
    assert run([], ["sh", "-c", script, str(out)], kill=0.2, seed=3, repeat=3) == 137
    lines = out.read_text().splitlines()
    assert 1 <= len(lines) <= 4  # one may be killed before it gets so far
    assert len(set(lines)) == 1  # on the same machine
    out.unlink()
    assert list(own_tmp.iterdir()) == []


def test_a_seed_repeats_the_moments() -> None:
    lives = [list(Hardship(kill=2.0, seed=seed, repeat=5).lives()) for seed in (7, 7, 8)]
    assert lives[0] == lives[1] != lives[2]
    assert len(lives[0]) == 6
    assert all(0 <= life <= 2 for life in lives[0])
    assert list(Hardship(kill=2.0).lives()) != list(Hardship(kill=2.0).lives())


@pytest.mark.parametrize(("ends", "runs"), [(0, 4), (3, 1)])
def test_a_guest_that_ends_by_itself(own_tmp: Path, ends: int, runs: int) -> None:
    out = own_tmp / "out"
    script = f'echo run >> "$0"; exit {ends}'
    assert run([], ["sh", "-c", script, str(out)], kill=300, seed=1, repeat=3) == ends
    assert out.read_text() == "run\n" * runs


def test_a_guest_that_is_ended_is_not_started_again(own_tmp: Path, vm0: ivshmem.Metadata) -> None:
    command = [IVSHMEM, "emulate", "--kill", "300", "--repeat", "9", "vm0", "--", "sh", "-c", "echo on; sleep 60"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "")
    assert errors.startswith("killed at random moments: --seed ")
    assert int(errors.split()[-1]) >= 0


@pytest.mark.parametrize(
    "words",
    [["--slow", "0.5"], ["--slow", "x"], ["--kill", "0"], ["--kill", "-1"], ["--repeat", "2"], ["--seed", "2"]],
)
def test_words_that_make_no_sense(vm0: ivshmem.Metadata, words: list[str]) -> None:
    done = subprocess.run([IVSHMEM, "emulate", *words, "vm0", "--", "true"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [{"slow": 0.5}, {"slow": float("nan")}, {"kill": 0}, {"repeat": 1}, {"seed": 1}])
def test_values_that_make_no_sense(how: dict[str, float]) -> None:
    with pytest.raises(eal.Invalid):
        run([], ["true"], **how)  # type: ignore[arg-type]


# Sends objects to the host for ever, or so many, and counts them where the host can see it.
SENDS = """
import sys, eal
with eal.init(proc_type="primary"):
    pool, ring, sent = eal.mempool_lookup("pool"), eal.ring_lookup("ring"), eal.memzone_lookup("sent").array("<u8", 1)
    left = int(sys.argv[1])
    while left:
        index = pool.get()
        if index is not None:
            while not ring.enqueue(index):
                pass
            sent[0] += 1
            left -= 1
"""


def test_a_host_goes_on_whatever_becomes_of_its_guest(primary: eal.Eal) -> None:
    pool = eal.mempool_create("pool", 256, 64, cache_size=8)
    ring = eal.ring_create("ring", 64, elem_size=4, flags=RingFlag.SP_ENQ | RingFlag.SC_DEQ)
    sent = eal.memzone_reserve("sent", 64)
    metadata = ivshmem.metadata_create("vm0")
    metadata.add(pool, ring, sent)
    taken = 0
    over = threading.Event()

    def serve() -> None:
        nonlocal taken
        while not over.is_set() or ring.count:
            index = ring.dequeue()
            if index is None:
                time.sleep(0.0001)
                continue
            assert isinstance(index, int)
            pool.put(index)
            taken += 1

    host = threading.Thread(target=serve)
    host.start()
    try:
        assert run(metadata.devices(), [*PYTHON, SENDS, "-1"], kill=1.2, seed=11, repeat=2) == 137
        assert run(metadata.devices(), [*PYTHON, SENDS, "1000"], slow=3) == 0
    finally:
        over.set()
        host.join()
    count = int(sent.array("<u8", 1)[0])
    assert taken >= 1000
    assert 0 <= taken - count <= 3  # one that was killed had no time to count its last one
    audit = pool.audit(rings=[ring])
    assert audit.twice == []
    assert audit.foreign == 0
    cached = [index for indices in audit.cached.values() for index in indices]
    assert sorted([*audit.free, *cached, *audit.in_hand]) == list(range(256))
    assert len(audit.in_hand) <= 3  # what each of the dead had in its hand
