# SPDX-License-Identifier: BSD-3-Clause
"""Emulation: a guest app runs unchanged with no VM at all, in good times or bad."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from eal.errors import EalError
from eal.lifecycle import cleanup as leftovers
from eal.runtime import prefix_dir as runtime
from ivshmem.emulate.bus import EmulatedBus as EmulatedBus
from ivshmem.emulate.fault_injection import Hardship
from ivshmem.scratch import Scratch
from ivshmem.vmm.device import Device

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_FOLLOW = 0.1  # seconds between two looks at what a guest is to be given


@dataclass(frozen=True)
class _Guest:
    env: dict[str, str]
    bus: EmulatedBus
    lock: int  # a descriptor that keeps the guest's folder


@contextmanager
def _surroundings(files: Iterable[Path | str | Device]) -> Iterator[_Guest]:
    """A bus and a runtime directory; what the guest left behind is taken away at the end."""
    scratch = Scratch("guest")
    try:
        with EmulatedBus(files, scratch.path) as bus:
            root = runtime.make_private(scratch.path / "run")
            env = {"EAL_SYSFS_ROOT": str(bus.root), "EAL_RUNTIME_DIR": str(root)}
            try:
                yield _Guest(env, bus, scratch.lock)
            finally:
                for directory in runtime.prefixes(root):
                    leftovers.remove(directory)
    finally:
        scratch.close()


@contextmanager
def guest_environment(files: Iterable[Path | str | Device]) -> Iterator[dict[str, str]]:
    """The environment of a guest app on an emulated bus, with a runtime directory of its own; what the guest left
    behind is taken away at the end. A read-only device cannot be written by it, a plain file can.
    """
    with _surroundings(files) as guest:
        yield guest.env


def run(
    devices: Sequence[Device],
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    slow: float = 1.0,
    kill: float | None = None,
    seed: int | None = None,
    repeat: int = 0,
    follow: Callable[[], Iterable[Device]] | None = None,
) -> int:
    """Runs a command as the guest that is given these devices; gives its exit status (128 + N for signal N).

    SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on, and the command is waited for.

    - slow: how many times slower it runs: all of its process group is stopped (SIGSTOP) most of the time.
    - kill: its process group is killed (SIGKILL) at a random moment within so many seconds, drawn by `seed`, and it is
      started again `repeat` times, on the same bus with what it left. A run that ends with an error of its own, or by a
      signal that was passed on, is the last.
    - follow: is asked now and then which devices the guest should have; those that it lacks come on the bus.

    With slow or kill the command has a process group of its own, and reads no terminal. Raises Invalid for values that
    make no sense.
    """
    hardship = Hardship(slow, kill, seed, repeat)
    status = 0
    with _surroundings(devices) as guest, _passing_on() as relay, _following(guest.bus, follow):
        environment = {**(os.environ if env is None else env), **guest.env}
        stdin = subprocess.DEVNULL if hardship.any and os.isatty(0) else None
        group = 0 if hardship.any else None
        for life in hardship.lives():
            process = subprocess.Popen(
                command, env=environment, stdin=stdin, process_group=group, pass_fds=[guest.lock]
            )
            relay.to(process, whole_group=hardship.any)
            killed = hardship.endure(process, life)
            status = process.wait()
            relay.to(None)
            if relay.used or (status and not killed):
                break
    return status if status >= 0 else 128 - status


@contextmanager
def _following(bus: EmulatedBus, devices: Callable[[], Iterable[Device]] | None) -> Iterator[None]:
    """Puts on the bus what comes to a guest's devices."""
    ended = threading.Event()

    def follow() -> None:
        while devices is not None and not ended.wait(_FOLLOW):
            try:
                bus.give(devices())
            except (EalError, OSError) as error:  # its host ended, or is about to
                log.debug("what the guest should have cannot be told: %s", error)

    thread = threading.Thread(target=follow, name="follow", daemon=True)
    if devices is not None:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if devices is not None:
            thread.join()


class _Relay:
    """Passes signals on to a process; those that come while there is none, to the next one."""

    def __init__(self) -> None:
        self.used = False
        self._process: subprocess.Popen[bytes] | None = None
        self._whole_group = False
        self._early: list[int] = []

    def to(self, process: subprocess.Popen[bytes] | None, *, whole_group: bool = False) -> None:
        self._process, self._whole_group = process, whole_group
        while process is not None and self._early:
            self._send(process, self._early.pop(0))

    def take(self, number: int, _: FrameType | None) -> None:
        self.used = True
        if self._process is None:
            self._early.append(number)
        elif number not in (signal.SIGINT, signal.SIGQUIT) or self._whole_group or not _in_foreground():
            self._send(self._process, number)

    def _send(self, process: subprocess.Popen[bytes], number: int) -> None:
        if not self._whole_group:
            process.send_signal(number)
        elif process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


@contextmanager
def _passing_on() -> Iterator[_Relay]:
    """Signals go to the process that the relay is told of."""
    relay = _Relay()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # of nohup, or of a shell for what it runs in the background
            signal.signal(number, relay.take)
    try:
        yield relay
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether a terminal's Ctrl-C goes to this process and its children: they have it already then."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
