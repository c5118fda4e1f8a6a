# SPDX-License-Identifier: BSD-3-Clause
"""Hardship: a guest that is made slow, or is killed and started again, to try how its peers bear it."""

from __future__ import annotations

import logging
import math
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from eal.errors import Invalid

log = logging.getLogger(__name__)

_TURN = 0.002  # seconds that a slow guest runs at a time


@dataclass(frozen=True)
class Hardship:
    """`slow`: how many times slower a guest is to run. `kill`: it is killed at a random moment within so many seconds,
    drawn by `seed`, and started again `repeat` times.
    """

    slow: float = 1.0
    kill: float | None = None
    seed: int | None = None
    repeat: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.slow < math.inf:
            raise Invalid(f"slow {self.slow!r}: a guest is made slower by a factor of 1 or more")
        if self.kill is not None and not 0 < self.kill < math.inf:
            raise Invalid(f"kill {self.kill!r}: seconds within which the guest is killed, more than 0")
        if self.repeat < 0 or (self.kill is None and (self.repeat or self.seed is not None)):
            raise Invalid(f"repeat {self.repeat!r}, seed {self.seed!r}: they belong to kill, and repeat is 0 or more")

    @property
    def any(self) -> bool:
        """Whether there is any: the guest has to be a process group of its own then."""
        return self.slow > 1 or self.kill is not None

    def lives(self) -> Iterator[float]:
        """Seconds of each run of the guest."""
        if self.kill is None:
            yield math.inf
            return
        seed = random.randrange(1 << 32) if self.seed is None else self.seed
        log.info("killed at random moments, seed %d", seed)
        draw = random.Random(seed)
        for _ in range(1 + self.repeat):
            yield draw.uniform(0, self.kill)

    def endure(self, process: subprocess.Popen[bytes], life: float) -> bool:
        """Waits until a guest has ended, or ends it after `life` seconds; whether it was killed. `process` leads a
        process group, all of which is stopped in turns, killed at the end of its life, and stopped no more afterwards.
        """
        if not self.any:
            process.wait()
            return False
        deadline = time.monotonic() + life
        ended = os.pidfd_open(process.pid)
        try:
            return self._attend(process.pid, ended, deadline)
        finally:  # while the leader is not waited for, its group's number is nobody else's
            _signal(process.pid, signal.SIGCONT)
            os.close(ended)
            process.wait()

    def _attend(self, group: int, ended: int, deadline: float) -> bool:
        turn = _TURN if self.slow > 1 else math.inf
        while True:
            begun = time.monotonic()
            if _readable(ended, min(turn, deadline - begun)):
                return False
            now = time.monotonic()
            if now >= deadline:
                _signal(group, signal.SIGKILL)
                return True
            if self.slow > 1:
                _signal(group, signal.SIGSTOP)
                over = _readable(ended, min((now - begun) * (self.slow - 1), deadline - now))
                _signal(group, signal.SIGCONT)
                if over:
                    return False


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _readable(fd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout == math.inf else max(0.0, timeout) * 1000))
