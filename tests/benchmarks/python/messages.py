# SPDX-License-Identifier: BSD-3-Clause
"""The messages that every channel moves, their checksum, and loops that send and receive single messages.

The checksum is the sum of all messages as 512-bit little-endian integers. The receiver adds up the messages of a call
before the next call: a message in bytes by int.from_bytes, an array by numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks.python.pair import Channel, Work

SIZE = 64
LANES = SIZE // 8
SLOTS = 32768  # capacity of channels with a configurable capacity, in messages: 2 MiB
DISTINCT = 256  # different messages; a multiple of every batch size, and a divisor of every sample size

# Lanes are below 2**32, so that the sum of 2**32 messages fits 64 bits.
PATTERN = np.random.default_rng(1).integers(1 << 32, size=(DISTINCT, LANES), dtype=np.uint64)
MESSAGES = [row.tobytes() for row in PATTERN]


def total_of(lanes: Any) -> int:
    """Return the checksum for the sums of the messages' 64-bit lanes."""
    return sum(int(lane) << 64 * number for number, lane in enumerate(lanes))


def send_each(try_send: Callable[[bytes], Any]) -> Work:
    """Return a sender that retries `try_send`, which returns a false value if the channel is full."""

    def send(n: int) -> int:
        for _ in range(n // DISTINCT):
            for message in MESSAGES:
                while not try_send(message):
                    pass
        return n

    return send


def send_each_waiting(put: Callable[[bytes], Any]) -> Work:
    """Return a sender that calls `put`, which blocks if the channel is full."""

    def send(n: int) -> int:
        for _ in range(n // DISTINCT):
            for message in MESSAGES:
                put(message)
        return n

    return send


def receive_each(try_receive: Callable[[], Any]) -> Work:
    """Return a receiver that retries `try_receive`, which returns None if the channel is empty."""

    def receive(n: int) -> int:
        total, number = 0, int.from_bytes
        for _ in range(n):
            while (message := try_receive()) is None:
                pass
            total += number(message, "little")
        return total

    return receive


def receive_each_waiting(get: Callable[[], bytes]) -> Work:
    """Return a receiver that calls `get`, which blocks if the channel is empty."""

    def receive(n: int) -> int:
        total, number = 0, int.from_bytes
        for _ in range(n):
            total += number(get(), "little")
        return total

    return receive


class Messages(Channel):
    """A channel of these messages."""

    step = DISTINCT
    module: str | None = None  # the module that must be installed

    def expected(self, n: int) -> int:
        return total_of(PATTERN.sum(0)) * (n // DISTINCT)
