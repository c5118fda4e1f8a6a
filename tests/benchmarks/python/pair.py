# SPDX-License-Identifier: BSD-3-Clause
"""Two pinned processes that run the two sides of a channel at the same time, and the duration of each run.

The processes have real-time priority if the machine permits, so that other processes do not disturb the measurement.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any

import eal

SENDER, RECEIVER = 0, 1
TIMEOUT = 60  # seconds; a process that does not answer within this time is hung

Work = Callable[[int], int]  # takes a number of messages, returns a checksum


class Channel:
    """A channel for messages between two processes. The parent creates it; each process opens its own side."""

    name: str
    batch = 1  # messages per call
    ours = False
    step = 1  # the number of messages in a sample is a multiple of this

    def __init__(self, context: SpawnContext, directory: str) -> None:
        """`directory` is a new directory for this run."""
        self.directory = directory

    def sender(self) -> Work:
        raise NotImplementedError

    def receiver(self) -> Work:
        raise NotImplementedError

    def expected(self, n: int) -> int:
        """Return the checksum of `n` messages."""
        raise NotImplementedError


def two_cpus() -> list[int]:
    """Return the last two CPUs that this process may use; the same CPU twice if there is only one."""
    return ([*sorted(os.sched_getaffinity(0))] * 2)[-2:]


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Pin this process to one CPU inside the context."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, two_cpus()[1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_role(role: int) -> None:
    """Pin this process to the CPU of its role, with real-time priority if permitted."""
    cpus = two_cpus()
    os.sched_setaffinity(0, {cpus[role]})
    if cpus[0] != cpus[1]:  # on one CPU, a spinning process with real-time priority would block the other
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pass


def run_side(role: int, channels: Sequence[Channel], prefix: str, barrier: Any, commands: Connection) -> None:
    """Run one of the processes: open its side of every channel, then run the samples that the parent requests."""
    app = eal.init(["--no-pci"], file_prefix=prefix, proc_type="secondary", no_huge=True)
    works = [each.sender() if role == SENDER else each.receiver() for each in channels]
    pin_role(role)
    commands.send(None)
    number = 0
    while command := commands.recv():
        channel, n = command
        number += 1
        barrier[role] = number
        while barrier[1 - role] != number:
            pass
        begin = time.monotonic_ns()
        total = works[channel](n)
        commands.send((begin, time.monotonic_ns(), total))
    app.close()
    works.clear()
    gc.collect()  # lets other libraries remove their files
    os._exit(0)  # does not wait for threads of other libraries


class Pair:
    """The two processes, and the samples that they measure."""

    def __init__(self, context: SpawnContext, channels: Sequence[Channel], prefix: str) -> None:
        self.channels = channels
        barrier = context.RawArray("q", 2)
        self.ends: list[Connection] = []
        self.processes = []
        for role in (RECEIVER, SENDER):  # the receiver opens first, because some senders connect to it
            parent_end, child_end = context.Pipe()
            process = context.Process(target=run_side, args=(role, channels, prefix, barrier, child_end), daemon=True)
            process.start()
            child_end.close()
            self.ends.insert(0, parent_end)
            self.processes.append(process)
            self.receive(parent_end)

    def receive(self, end: Connection) -> Any:
        if not end.poll(TIMEOUT):
            raise RuntimeError(f"benchmark process must answer within {TIMEOUT} s, got no answer")
        return end.recv()

    def sample(self, channel: int, n: int) -> int:
        """Return the nanoseconds that `n` messages take. Raise RuntimeError if the checksum is wrong."""
        for end in self.ends:
            end.send((channel, n))
        sent, received = self.receive(self.ends[SENDER]), self.receive(self.ends[RECEIVER])
        if received[2] != self.channels[channel].expected(n):
            raise RuntimeError(f"{self.channels[channel].name}: wrong checksum of {n} messages")
        return int(max(sent[1], received[1]) - min(sent[0], received[0]))

    def calibrate(self, channel: int, wanted_ns: int) -> int:
        """Return the number of messages that take about `wanted_ns`."""
        step = self.channels[channel].step
        n = step * 4
        while (duration := self.sample(channel, n)) < wanted_ns // 8:
            n *= 4
        return max(step, n * wanted_ns // duration // step * step)

    def close(self) -> None:
        for end, process in zip(self.ends, reversed(self.processes), strict=True):
            if process.is_alive():
                end.send(None)
        for process in self.processes:
            process.join(5)
            process.kill()


@contextmanager
def pair(kinds: Sequence[type[Channel]], prepare: Callable[[eal.Eal], object]) -> Iterator[Pair]:
    """Run both processes with one channel of each kind. `prepare` creates the objects that the channels look up."""
    context = multiprocessing.get_context("spawn")
    prefix = f"bench{os.getpid()}"
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        eal.init(["--no-pci"], file_prefix=prefix, proc_type="primary", no_huge=True) as app,
    ):
        prepare(app)
        processes = Pair(context, [kind(context, directory) for kind in kinds], prefix)
        try:
            yield processes
        finally:
            processes.close()


def samples(kinds: Sequence[type[Channel]], prepare: Callable[[eal.Eal], object], rounds: int, wanted_ns: int) -> Any:
    """Return nanoseconds per message: for each kind a list of `rounds` samples. The kinds take turns."""
    with pair(kinds, prepare) as processes:
        sizes = [processes.calibrate(channel, wanted_ns) for channel in range(len(kinds))]
        times: list[list[float]] = [[] for _ in kinds]
        for _ in range(rounds):
            for channel, n in enumerate(sizes):
                times[channel].append(processes.sample(channel, n) / n)
    return times
