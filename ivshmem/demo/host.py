# SPDX-License-Identifier: BSD-3-Clause
"""The demo: a host and a guest exchange messages through a pool and two rings, and check every byte of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import eal
import ivshmem
from eal.errors import EalError, Invalid, Stalled
from ivshmem.emulate.runner import guest_environment
from ivshmem.metadata.metadata import Metadata

GUEST_SCRIPT = Path(__file__).with_name("guest.py")
HEADER = [("sequence", "<u8"), ("checksum", "<u4"), ("length", "<u4")]
HEADER_SIZE = 16
CONTROL = [("messages", "<u8"), ("size", "<u8"), ("guest_ready", "<u4"), ("host_done", "<u4")]
ANSWER = [("sequence", "<u8"), ("checksum", "<u4"), ("fault", "<u4")]
BATCH = 64
POOL = 2048
RING = 1024
SILENCE = 3.0  # seconds without an answer, once all is sent, after which the rest is lost
START_LIMIT = {False: 30.0, True: 120.0}  # seconds for the guest to show up: emulated, in a VM
FAULTS = ("corrupt", "drop", "swap")


class Guest(Protocol):
    """A guest that runs."""

    def alive(self) -> bool: ...
    def finish(self, limit: float) -> tuple[int, str]:
        """Waits for its end; gives exit status and output."""


@dataclass
class Report:
    """What a demo came to; `--json` prints exactly this."""

    mode: str
    messages: int
    size: int
    created: dict[str, str]
    cmdline: str
    guest: dict[str, Any] = field(default_factory=dict)
    answered: int = 0
    lost: int = 0
    reordered: int = 0
    corrupted: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    bytes_per_second: float = 0.0
    pool_available: int = 0
    pool_size: int = 0
    faults: list[str] = field(default_factory=list)
    ok: bool = False


@dataclass
class Objects:
    """What the host makes for the demo."""

    control: np.ndarray[Any, Any]
    pool: eal.Mempool
    to_guest: eal.Ring
    to_host: eal.Ring


def run(
    *,
    messages: int,
    size: int,
    vm: bool = False,
    file_prefix: str | None = None,
    fault: str | None = None,
    on_start: Callable[[Report], None] = lambda _: None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Runs the whole demo. `fault` spoils one message in flight on purpose: "corrupt", "drop" or "swap".

    `on_start` is called when all is made and before the guest starts, `on_progress` with the answers so far. What goes
    wrong with messages stands in the report; raises EalError where the demo cannot run at all.
    """
    if fault is not None and fault not in FAULTS:
        raise Invalid(f"fault {fault!r}: one of {', '.join(FAULTS)}")
    name = f"demo{os.getpid()}"
    with eal.init(file_prefix=file_prefix or name) as host:
        objects = _create(messages, size)
        metadata = ivshmem.metadata_create(name)
        _share(metadata, objects)
        report = Report(
            mode="vm" if vm else "emulated",
            messages=messages,
            size=size,
            created={"file_prefix": host.file_prefix, "metadata": name, **_describe(objects)},
            cmdline=metadata.cmdline(),
        )
        on_start(report)
        with (_vm_guest if vm else _emulated_guest)(metadata) as guest:
            _await_guest(guest, objects, START_LIMIT[vm])
            _Exchange(objects, guest, report, fault).run(on_progress)
            objects.control["host_done"] = 1
            _finish(guest, report)
        _judge(objects, report)
    return report


def _create(messages: int, size: int) -> Objects:
    zone = eal.array_reserve("demo_control", (), CONTROL)
    control = zone.array()
    control["messages"], control["size"] = messages, size
    flags = eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ
    return Objects(
        control,
        eal.mempool_create("demo_pool", POOL, HEADER_SIZE + size, cache_size=BATCH),
        eal.ring_create("demo_to_guest", RING, elem_size=4, flags=flags),
        eal.ring_create("demo_to_host", RING, elem_size=np.dtype(ANSWER).itemsize, flags=flags),
    )


def _share(metadata: Metadata, objects: Objects) -> None:
    metadata.add(eal.memzone_lookup("demo_control"), objects.pool, objects.to_guest, objects.to_host)


def _describe(objects: Objects) -> dict[str, str]:
    rings = {
        r.name: f"ring of {r.capacity} elements of {r.elem_size} bytes" for r in (objects.to_guest, objects.to_host)
    }
    return {
        "demo_control": "memzone with an array of its own dtype",
        "demo_pool": f"mempool of {objects.pool.n} objects of {objects.pool.elt_size} bytes",
        **rings,
    }


# --- guests ---------------------------------------------------------------------------------------------------


class _Process:
    """The guest as a process of this machine."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def alive(self) -> bool:
        return self._process.poll() is None

    def finish(self, limit: float) -> tuple[int, str]:
        try:
            output, _ = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired as error:
            raise Stalled(f"the guest did not end within {limit:g} s") from error
        return self._process.returncode, output


@contextmanager
def _emulated_guest(metadata: Metadata) -> Iterator[Guest]:
    with guest_environment(metadata.devices()) as env:
        process = subprocess.Popen(
            [sys.executable, "-P", str(GUEST_SCRIPT)], env={**os.environ, **env}, stdout=subprocess.PIPE, text=True
        )
        try:
            yield _Process(process)
        finally:
            process.kill()
            process.wait()


class _Machine:
    """The guest as a virtual machine."""

    def __init__(self, vm: Any) -> None:
        self._vm = vm

    def alive(self) -> bool:
        return bool(self._vm.alive())

    def finish(self, limit: float) -> tuple[int, str]:
        result = self._vm.wait(limit)
        return result.status, result.output


@contextmanager
def _vm_guest(metadata: Metadata) -> Iterator[Guest]:
    from ivshmem.vm.vm import VM, VmConfig

    config = VmConfig([sys.executable, "-P", str(GUEST_SCRIPT)], qemu_args=metadata.qemu_args(), timeout=300.0)
    with VM(config) as vm:
        yield _Machine(vm)


def _await_guest(guest: Guest, objects: Objects, limit: float) -> None:
    deadline = time.monotonic() + limit
    while not objects.control["guest_ready"]:
        if not guest.alive():
            status, output = guest.finish(5.0)
            raise EalError(f"the guest ended with status {status} before it was ready: {output.strip()[-2000:]}")
        if time.monotonic() > deadline:
            raise Stalled(f"the guest did not show up within {limit:g} s")
        time.sleep(0.005)


def _finish(guest: Guest, report: Report) -> None:
    status, output = guest.finish(30.0)
    lines = output.strip().splitlines()
    try:
        report.guest = json.loads(lines[-1])
    except (IndexError, ValueError):
        report.faults.append(f"the guest gave no report: {output.strip()[-500:]!r}")
    if status:
        report.faults.append(f"the guest ended with status {status}")
    report.faults += [f"guest: {fault}" for fault in report.guest.get("faults", [])]


# --- messages -------------------------------------------------------------------------------------------------


class _Exchange:
    """Sends all messages and checks all answers, both in bursts, neither waiting for the other."""

    def __init__(self, objects: Objects, guest: Guest, report: Report, fault: str | None) -> None:
        self._objects = objects
        self._guest = guest
        self._report = report
        self._fault = fault
        self._headers = objects.pool.view(HEADER)
        self._bytes = objects.pool.array
        self._noise = np.random.default_rng(report.messages).integers(0, 256, report.size + 251, np.uint8)
        self._sent = 0
        self._checksums: dict[int, int] = {}
        self._expected = 0
        self._unsent = np.zeros(0, np.uint32)

    def run(self, on_progress: Callable[[int], None]) -> None:
        report = self._report
        start = time.perf_counter()
        heard = time.monotonic()
        while report.answered < report.messages:
            moved = self._send()
            if self._receive():
                heard = time.monotonic()
                on_progress(report.answered)
            elif not moved:
                if not self._guest.alive() or time.monotonic() - heard > SILENCE:
                    break
                time.sleep(0)  # two processes on one core: let the guest run
        report.seconds = time.perf_counter() - start
        report.lost = report.messages - report.answered
        report.rate = report.answered / report.seconds
        report.bytes_per_second = report.rate * report.size
        if report.lost:
            report.faults.append(f"{report.lost} messages were never answered")

    def _send(self) -> bool:
        """Sends up to a burst; whether anything moved."""
        if len(self._unsent) == 0 and self._sent < self._report.messages:
            self._unsent = self._fill(min(BATCH, self._report.messages - self._sent))
        done = self._objects.to_guest.enqueue_burst(self._unsent) if len(self._unsent) else 0
        self._unsent = self._unsent[done:]
        return done > 0

    def _fill(self, n: int) -> np.ndarray[Any, Any]:
        """Takes `n` objects and writes the next messages into them; none where the pool has too few."""
        indices = np.zeros(n, np.uint32)
        if self._objects.pool.get_bulk(indices) == 0:
            return indices[:0]
        size = self._report.size
        for sequence, index in enumerate(indices.tolist(), self._sent):
            payload = self._noise[sequence % 251 : sequence % 251 + size]
            self._bytes[index, HEADER_SIZE : HEADER_SIZE + size] = payload
            self._checksums[sequence] = checksum = zlib.crc32(payload.data)
            self._headers[index] = (sequence, checksum, size)
        indices = self._spoil(indices)
        self._sent += n
        return indices

    def _spoil(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Does to one message of the middle burst what `fault` asks for, after its checksum was taken."""
        middle = self._report.messages // 2
        at = middle - self._sent
        if self._fault is None or not 0 <= at < len(indices):
            return indices
        if self._fault == "corrupt":
            self._bytes[indices[at], HEADER_SIZE] ^= 0xFF
        elif self._fault == "drop":
            self._objects.pool.put(int(indices[at]))
            return np.delete(indices, at)
        else:
            other = at - 1 if at else at + 1
            indices[[at, other]] = indices[[other, at]]
        return indices

    def _receive(self) -> int:
        answers = np.zeros((BATCH, HEADER_SIZE), np.uint8)
        n = self._objects.to_host.dequeue_burst(answers)
        report = self._report
        for sequence, checksum, _ in answers[:n].view(ANSWER).reshape(n).tolist():
            report.answered += 1
            if sequence != self._expected:
                report.reordered += sequence < self._expected
                report.faults.append(f"answer {sequence} came where {self._expected} was due")
            self._expected = sequence + 1
            if self._checksums.pop(sequence, None) != checksum:
                report.corrupted += 1
                report.faults.append(f"message {sequence} arrived with another checksum")
        return n


def _judge(objects: Objects, report: Report) -> None:
    report.pool_size = objects.pool.n
    report.pool_available = objects.pool.available
    if report.pool_available != report.pool_size:
        report.faults.append(f"{report.pool_size - report.pool_available} objects did not come back to the pool")
    if not objects.pool.audit().ok:
        report.faults.append("the pool's audit found an object in two places")
    report.ok = not report.faults
