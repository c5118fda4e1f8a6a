# SPDX-License-Identifier: BSD-3-Clause
"""Fault injection: throttled guests, killed and restarted guests, and the state of their peers afterwards."""

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
from ivshmem.emulate.fault_injection import FaultInjection
from ivshmem.emulate.runner import run

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))
PYTHON = [sys.executable, "-P", "-c"]


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary directory of this process and its children."""
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


# Uses 60 ms of CPU time and prints the wall-clock time of that.
BUSY = "import time; b = time.monotonic()\nwhile time.process_time() < 0.06: pass\nprint(time.monotonic() - b)"


@pytest.mark.parametrize("script", ['exec "$@"', '"$@"; exit $?'])
def test_slow_throttles_command_and_its_children(own_tmp: Path, script: str) -> None:
    out = own_tmp / "out"
    start = time.monotonic()
    assert run([], ["sh", "-c", f'{{ {script}; }} > "$0"', str(out), *PYTHON, BUSY], slow=10) == 0
    elapsed = float(out.read_text())
    assert 0.2 < elapsed < time.monotonic() - start  # less than 0.6 s: the start of Python used CPU time before
    out.unlink()
    assert list(own_tmp.iterdir()) == []


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signalled_slow_guest_leaves_no_stopped_process(vm0: ivshmem.Metadata, own_tmp: Path, number: int) -> None:
    """Neither the guest nor its background process stays stopped, even if `ivshmem emulate` itself is killed."""
    script = 'trap "" HUP; (trap "" INT TERM HUP; exec sleep 60) & echo $$ $!; trap - HUP; wait; wait'
    command = [IVSHMEM, "emulate", "--slow", "10", "vm0", "--", "sh", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout
        guest, other = map(int, process.stdout.readline().split())
        try:
            time.sleep(0.3)  # several stops and continues
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
            process.kill()  # otherwise a failed assertion would wait for it forever
            os.kill(other, signal.SIGKILL)


def test_killed_guest_is_restarted_in_the_same_environment(own_tmp: Path) -> None:
    out = own_tmp / "out"
    script = 'echo "$EAL_RUNTIME_DIR" >> "$0"; sleep 60 & wait'
    assert run([], ["sh", "-c", script, str(out)], kill=0.2, seed=3, repeat=3) == 137
    lines = out.read_text().splitlines()
    assert 1 <= len(lines) <= 4  # a guest may be killed before its echo
    assert len(set(lines)) == 1
    out.unlink()
    assert list(own_tmp.iterdir()) == []


def test_lifetimes_with_same_seed_are_equal() -> None:
    lifetimes = [list(FaultInjection(kill=2.0, seed=seed, repeat=5).lifetimes()) for seed in (7, 7, 8)]
    assert lifetimes[0] == lifetimes[1] != lifetimes[2]
    assert len(lifetimes[0]) == 6
    assert all(0 <= lifetime <= 2 for lifetime in lifetimes[0])
    assert list(FaultInjection(kill=2.0).lifetimes()) != list(FaultInjection(kill=2.0).lifetimes())


@pytest.mark.parametrize(("status", "runs"), [(0, 4), (3, 1)])
def test_guest_is_restarted_after_success_but_not_after_failure(own_tmp: Path, status: int, runs: int) -> None:
    out = own_tmp / "out"
    script = f'echo run >> "$0"; exit {status}'
    assert run([], ["sh", "-c", script, str(out)], kill=300, seed=1, repeat=3) == status
    assert out.read_text() == "run\n" * runs


def test_guest_ended_by_forwarded_signal_is_not_restarted(own_tmp: Path, vm0: ivshmem.Metadata) -> None:
    command = [IVSHMEM, "emulate", "--kill", "300", "--repeat", "9", "vm0", "--", "sh", "-c", "echo on; sleep 60"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "")
    assert errors.startswith("killing the guest at random times: --seed ")
    assert int(errors.split()[-1]) >= 0


def test_guest_that_exits_with_0_on_forwarded_signal_is_not_restarted(vm0: ivshmem.Metadata) -> None:
    script = 'trap "exit 0" TERM; echo on; while :; do sleep 0.02; done'
    command = [IVSHMEM, "emulate", "--kill", "300", "--repeat", "9", "vm0", "--", "sh", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGTERM)
        try:
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "")


@pytest.mark.parametrize(
    "options",
    [["--slow", "0.5"], ["--slow", "x"], ["--kill", "0"], ["--kill", "-1"], ["--repeat", "2"], ["--seed", "2"]],
)
def test_emulate_with_invalid_option_value_is_invalid_usage(vm0: ivshmem.Metadata, options: list[str]) -> None:
    done = subprocess.run([IVSHMEM, "emulate", *options, "vm0", "--", "true"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("values", [{"slow": 0.5}, {"slow": float("nan")}, {"kill": 0}, {"repeat": 1}, {"seed": 1}])
def test_run_with_value_out_of_range_raises_invalid(values: dict[str, float]) -> None:
    with pytest.raises(eal.Invalid):
        run([], ["true"], **values)  # type: ignore[arg-type]


# Sends argv[1] objects to the host (-1: without end) and counts them in shared memory.
SENDER = """
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


def test_host_continues_after_guests_were_killed_or_throttled(primary: eal.Eal) -> None:
    pool = eal.mempool_create("pool", 256, 64, cache_size=8)
    ring = eal.ring_create("ring", 64, elem_size=4, flags=RingFlag.SP_ENQ | RingFlag.SC_DEQ)
    sent = eal.memzone_reserve("sent", 64)
    metadata = ivshmem.metadata_create("vm0")
    metadata.add(pool, ring, sent)
    received = 0
    stop = threading.Event()

    def serve() -> None:
        nonlocal received
        while not stop.is_set() or ring.count:
            index = ring.dequeue()
            if index is None:
                time.sleep(0.0001)
                continue
            assert isinstance(index, int)
            pool.put(index)
            received += 1

    host = threading.Thread(target=serve)
    host.start()
    try:
        assert run(metadata.devices(), [*PYTHON, SENDER, "-1"], kill=1.2, seed=11, repeat=2) == 137
        assert run(metadata.devices(), [*PYTHON, SENDER, "1000"], slow=3) == 0
    finally:
        stop.set()
        host.join()
    count = int(sent.array("<u8", 1)[0])
    assert received >= 1000
    assert 0 <= received - count <= 3  # each killed guest may not have counted its last object
    audit = pool.audit(rings=[ring])
    assert audit.twice == []
    assert audit.foreign == 0
    cached = [index for indices in audit.cached.values() for index in indices]
    assert sorted([*audit.free, *cached, *audit.in_hand]) == list(range(256))
    assert len(audit.in_hand) <= 3  # one object that each dead guest had allocated
