# SPDX-License-Identifier: BSD-3-Clause
"""Signal relay: forward signals of this process to the guest command that it runs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class SignalRelay:
    """Forwards signals to the attached process. Signals that arrive while none is attached go to the next one."""

    def __init__(self) -> None:
        self.received = False
        self._process: subprocess.Popen[bytes] | None = None
        self._whole_group = False
        self._pending: list[int] = []

    def attach(self, process: subprocess.Popen[bytes], *, whole_group: bool = False) -> None:
        """Forward signals to a process, or to the process group that it leads."""
        self._process, self._whole_group = process, whole_group
        while self._pending:
            self._send(process, self._pending.pop(0))

    def detach(self) -> None:
        self._process = None

    def handle(self, number: int, _: FrameType | None) -> None:
        """Signal handler."""
        self.received = True
        if self._process is None:
            self._pending.append(number)
        elif number not in (signal.SIGINT, signal.SIGQUIT) or self._whole_group or not _in_foreground():
            self._send(self._process, number)

    def _send(self, process: subprocess.Popen[bytes], number: int) -> None:
        if not self._whole_group:
            process.send_signal(number)
        elif process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


@contextmanager
def relay_signals() -> Iterator[SignalRelay]:
    """Install the relay as the handler of SIGINT, SIGTERM, SIGHUP and SIGQUIT; restore the handlers at the end."""
    relay = SignalRelay()
    old_handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in old_handlers.items():
        if handler != signal.SIG_IGN:  # nohup, and shells for background jobs, ignore signals on purpose
            signal.signal(number, relay.handle)
    try:
        yield relay
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Return True if the terminal sends its own SIGINT and SIGQUIT to this process group, hence to the command too."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
