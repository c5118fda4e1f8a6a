# SPDX-License-Identifier: BSD-3-Clause
"""Ping-pong between two pinned processes: a cache line in C, and a ring in C and in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import eal
from tests.benchmarks.python import c_loops
from tests.benchmarks.python.pair import Channel, Work, samples

SAMPLE_NS = 4_000_000
ROUNDS, QUICK_ROUNDS = 61, 31
TARGET = 2.0  # largest allowed ratio of the ring to the cache line, both in C


class Echo(Channel):
    """`n` round trips of a number, which each side increments."""

    def expected(self, n: int) -> int:
        return 2 * n - 1


class CacheLine(Echo):
    name = "cache line, C"

    def expected(self, n: int) -> int:
        return 2 * n

    def sender(self) -> Work:
        line, library = eal.memzone_lookup("line"), c_loops.load()
        return lambda n: int(library.loops_ping_line(line.address, n))

    def receiver(self) -> Work:
        line, library = eal.memzone_lookup("line"), c_loops.load()
        return lambda n: int(library.loops_pong_line(line.address, n))


class RingInC(Echo):
    name = "ring, C"

    def sender(self) -> Work:
        library, there, back = c_loops.load(), eal.ring_lookup("there").handle, eal.ring_lookup("back").handle
        return lambda n: int(library.loops_ping_ring(there, back, n))

    def receiver(self) -> Work:
        library, there, back = c_loops.load(), eal.ring_lookup("there").handle, eal.ring_lookup("back").handle
        return lambda n: int(library.loops_pong_ring(back, there, n))


class RingInPython(Echo):
    name = "Ring.enqueue, dequeue"

    def sender(self) -> Work:
        put = eal.ring_lookup("there").enqueue
        take: Callable[[], Any] = eal.ring_lookup("back").dequeue

        def ping(n: int) -> int:
            value = 0
            for _ in range(n):
                put(value)
                while (answer := take()) is None:
                    pass
                value = answer + 1
            return value

        return ping

    def receiver(self) -> Work:
        take: Callable[[], Any] = eal.ring_lookup("there").dequeue
        put = eal.ring_lookup("back").enqueue

        def pong(n: int) -> int:
            answer = 0
            for _ in range(n):
                while (value := take()) is None:
                    pass
                answer = value + 1
                put(answer)
            return answer

        return pong


class BurstInPython(Echo):
    """The element does not change: numpy arithmetic would take longer than the round trip."""

    name = "Burst.enqueue, dequeue"

    def expected(self, n: int) -> int:
        return n

    def sender(self) -> Work:
        there, back = eal.ring_lookup("there").burst(1), eal.ring_lookup("back").burst(1)

        def ping(n: int) -> int:
            put, take = there.enqueue, back.dequeue
            for _ in range(n):
                put(1)
                while not take():
                    pass
            return n

        return ping

    def receiver(self) -> Work:
        there, back = eal.ring_lookup("there").burst(1), eal.ring_lookup("back").burst(1)

        def pong(n: int) -> int:
            put, take = back.enqueue, there.dequeue
            for _ in range(n):
                while not take():
                    pass
                put(1)
            return n

        return pong


KINDS: tuple[type[Echo], ...] = (CacheLine, RingInC, RingInPython, BurstInPython)


def prepare(app: eal.Eal) -> None:
    app.memzone_reserve("line", 64)
    for name in ("there", "back"):
        app.ring_create(name, 1024, flags=eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ)


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Return the median of each kind in ns per round trip, and its ratio to the cache line."""
    c_loops.build()
    times = samples(KINDS, prepare, QUICK_ROUNDS if quick else ROUNDS, SAMPLE_NS)
    medians = [float(np.median(ns)) for ns in times]
    rows = [
        {"name": kind.name, "ns": ns, "times_the_line": ns / medians[0], "target": TARGET if kind is RingInC else None}
        for kind, ns in zip(KINDS, medians, strict=True)
    ]
    return {"rows": rows}


def show(console: Console, results: dict[str, Any]) -> None:
    table = Table(title="Latency: ns per round trip between two processes", title_justify="left", box=box.SIMPLE)
    table.add_column("")
    for heading in ("ns", "ratio to cache line", "target"):
        table.add_column(heading, justify="right")
    for row in results["rows"]:
        colour = "" if row["target"] is None else "[green]" if row["times_the_line"] <= row["target"] else "[red]"
        target = "" if row["target"] is None else f"{row['target']:.0f}"
        table.add_row(row["name"], f"{row['ns']:.0f}", f"{colour}{row['times_the_line']:.2f}", target)
    console.print(table)
