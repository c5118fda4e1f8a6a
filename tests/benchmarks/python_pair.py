# SPDX-License-Identifier: BSD-3-Clause
"""Two pinned processes that run the two sides of a channel at the same time, and the time that took.

Where the machine permits it they have real-time priority: what is measured is a channel, not who else wants the CPU.
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
PATIENCE = 60  # seconds after which a side that says nothing is taken for hung

Work = Callable[[int], int]  # so many messages; gives a checksum


class Channel:
    """One way to bring messages across. Made in the parent; each process opens its own side."""

    name: str
    batch = 1  # messages a call
    ours = False
    step = 1  # a sample is a multiple of it

    def __init__(self, context: SpawnContext, place: str) -> None:
        """`place`: a directory of this run's own."""
        self.place = place

    def sender(self) -> Work:
        raise NotImplementedError

    def receiver(self) -> Work:
        raise NotImplementedError

    def expected(self, n: int) -> int:
        """What the receiver's checksum of `n` messages has to be."""
        raise NotImplementedError


def two_cpus() -> list[int]:
    """The last two CPUs that this process may use; the same twice where there is one."""
    return ([*sorted(os.sched_getaffinity(0))] * 2)[-2:]


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """This process stays on one CPU meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, two_cpus()[1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def take_cpu(role: int) -> None:
    cpus = two_cpus()
    os.sched_setaffinity(0, {cpus[role]})
    if cpus[0] != cpus[1]:  # on one CPU, who spins would keep the other from it
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pass


def run_side(role: int, channels: Sequence[Channel], prefix: str, meet: Any, orders: Connection) -> None:
    """One of the processes: opens its side of every channel, then does as it is told."""
    app = eal.init(["--no-pci"], file_prefix=prefix, proc_type="secondary", no_huge=True)
    works = [each.sender() if role == SENDER else each.receiver() for each in channels]
    take_cpu(role)
    orders.send(None)
    number = 0
    while order := orders.recv():
        which, n = order
        number += 1
        meet[role] = number
        while meet[1 - role] != number:
            pass
        begin = time.monotonic_ns()
        total = works[which](n)
        orders.send((begin, time.monotonic_ns(), total))
    app.close()
    works.clear()
    gc.collect()  # so that the rivals remove their files
    os._exit(0)  # their threads are not worth waiting for


class Pair:
    """The two processes, and the samples they give."""

    def __init__(self, context: SpawnContext, channels: Sequence[Channel], prefix: str) -> None:
        self.channels = channels
        meet = context.RawArray("q", 2)
        self.ends: list[Connection] = []
        self.processes = []
        for role in (RECEIVER, SENDER):  # the receiver opens first: some senders need somebody to connect to
            mine, theirs = context.Pipe()
            process = context.Process(target=run_side, args=(role, channels, prefix, meet, theirs), daemon=True)
            process.start()
            theirs.close()
            self.ends.insert(0, mine)
            self.processes.append(process)
            self.hear(mine)

    def hear(self, end: Connection) -> Any:
        if not end.poll(PATIENCE):
            raise RuntimeError(f"a process of the benchmark was silent for {PATIENCE} s")
        return end.recv()

    def sample(self, which: int, n: int) -> int:
        """Nanoseconds that `n` messages took. Stops the benchmark if one was lost or damaged."""
        for end in self.ends:
            end.send((which, n))
        sent, received = self.hear(self.ends[SENDER]), self.hear(self.ends[RECEIVER])
        if received[2] != self.channels[which].expected(n):
            raise RuntimeError(f"{self.channels[which].name}: the checksum of {n} messages is wrong")
        return int(max(sent[1], received[1]) - min(sent[0], received[0]))

    def calibrate(self, which: int, wanted_ns: int) -> int:
        """How many messages take about that long."""
        step = self.channels[which].step
        n = step * 4
        while (took := self.sample(which, n)) < wanted_ns // 8:
            n *= 4
        return max(step, n * wanted_ns // took // step * step)

    def close(self) -> None:
        for end, process in zip(self.ends, reversed(self.processes), strict=True):
            if process.is_alive():
                end.send(None)
        for process in self.processes:
            process.join(5)
            process.kill()


@contextmanager
def pair(kinds: Sequence[type[Channel]], prepare: Callable[[eal.Eal], object]) -> Iterator[Pair]:
    """Both processes, with one channel of each kind open. `prepare` makes what the channels look up."""
    context = multiprocessing.get_context("spawn")
    prefix = f"bench{os.getpid()}"
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as place,
        eal.init(["--no-pci"], file_prefix=prefix, proc_type="primary", no_huge=True) as app,
    ):
        prepare(app)
        both = Pair(context, [kind(context, place) for kind in kinds], prefix)
        try:
            yield both
        finally:
            both.close()


def samples(kinds: Sequence[type[Channel]], prepare: Callable[[eal.Eal], object], rounds: int, wanted_ns: int) -> Any:
    """Nanoseconds a message: for each kind a list of `rounds` samples, taken in turns."""
    with pair(kinds, prepare) as both:
        sizes = [both.calibrate(which, wanted_ns) for which in range(len(kinds))]
        taken: list[list[float]] = [[] for _ in kinds]
        for _ in range(rounds):
            for which, n in enumerate(sizes):
                taken[which].append(both.sample(which, n) / n)
    return taken
