# SPDX-License-Identifier: BSD-3-Clause
"""Fault injection: throttle an emulated guest, or kill and restart it, to test its peers."""

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

_SLICE = 0.002  # seconds that a throttled guest runs between two stops


@dataclass(frozen=True)
class FaultInjection:
    """Faults to inject into a guest.

    slow    factor by which the guest is slowed down, >= 1
    kill    upper limit of the random time in seconds after which the guest is killed; None: never
    seed    seed of the random times; None: a random seed, which is logged
    repeat  how many times a killed guest is restarted
    """

    slow: float = 1.0
    kill: float | None = None
    seed: int | None = None
    repeat: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.slow < math.inf:
            raise Invalid(f"slow must be a finite factor >= 1, got {self.slow!r}")
        if self.kill is not None and not 0 < self.kill < math.inf:
            raise Invalid(f"kill must be a finite number of seconds > 0, got {self.kill!r}")
        if self.repeat < 0:
            raise Invalid(f"repeat must be >= 0, got {self.repeat!r}")
        if self.kill is None and (self.repeat or self.seed is not None):
            raise Invalid(f"repeat ({self.repeat!r}) and seed ({self.seed!r}) are only valid with kill")

    @property
    def active(self) -> bool:
        """True if any fault is injected. The guest must lead a process group then."""
        return self.slow > 1 or self.kill is not None

    def lifetimes(self) -> Iterator[float]:
        """Yield the seconds after which each run of the guest is killed; infinity for a run that is not killed."""
        if self.kill is None:
            yield math.inf
            return
        seed = random.randrange(1 << 32) if self.seed is None else self.seed
        log.info("killing the guest at random times, seed %d", seed)
        generator = random.Random(seed)
        for _ in range(1 + self.repeat):
            yield generator.uniform(0, self.kill)

    def supervise(self, process: subprocess.Popen[bytes], lifetime: float) -> bool:
        """Wait until a guest ends and return False, or kill it after `lifetime` seconds and return True.

        `process` must lead a process group. The whole group is throttled and killed; on return it is not stopped.
        """
        if not self.active:
            process.wait()
            return False
        deadline = time.monotonic() + lifetime
        pidfd = os.pidfd_open(process.pid)
        try:
            return self._throttle(process.pid, pidfd, deadline)
        finally:
            # Signal the group before wait(): until then the kernel does not reuse its number.
            _signal(process.pid, signal.SIGCONT)
            os.close(pidfd)
            process.wait()

    def _throttle(self, group: int, pidfd: int, deadline: float) -> bool:
        run_time = _SLICE if self.slow > 1 else math.inf
        while True:
            start = time.monotonic()
            if _has_ended(pidfd, min(run_time, deadline - start)):
                return False
            now = time.monotonic()
            if now >= deadline:
                _signal(group, signal.SIGKILL)
                return True
            if self.slow > 1:
                _signal(group, signal.SIGSTOP)
                ended = _has_ended(pidfd, min((now - start) * (self.slow - 1), deadline - now))
                _signal(group, signal.SIGCONT)
                if ended:
                    return False


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _has_ended(pidfd: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds for the end of a process; return True if it has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout == math.inf else max(0.0, timeout) * 1000))
