# SPDX-License-Identifier: BSD-3-Clause
"""Runner: run a guest application as a process of this machine on an emulated bus."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eal.errors import EalError
from eal.lifecycle import cleanup
from eal.runtime import prefix_dir
from ivshmem.emulate.bus import EmulatedBus
from ivshmem.emulate.fault_injection import FaultInjection
from ivshmem.emulate.signal_relay import relay_signals
from ivshmem.scratch import Scratch
from ivshmem.vmm.device import Device

log = logging.getLogger(__name__)

_FOLLOW_INTERVAL = 0.1  # seconds between two polls of the list of devices


@dataclass(frozen=True)
class _Guest:
    env: dict[str, str]
    bus: EmulatedBus
    lock: int  # descriptor whose flock keeps the guest's scratch directory


@contextmanager
def _guest(files: Iterable[Path | str | Device]) -> Iterator[_Guest]:
    """Create a bus and a runtime directory; remove both, and the files of the guest, at the end."""
    scratch = Scratch("guest")
    try:
        with EmulatedBus(files, scratch.path) as bus:
            root = prefix_dir.make_private(scratch.path / "run")
            env = {"EAL_SYSFS_ROOT": str(bus.root), "EAL_RUNTIME_DIR": str(root)}
            try:
                yield _Guest(env, bus, scratch.lock)
            finally:
                for directory in prefix_dir.prefixes(root):
                    cleanup.remove(directory)
    finally:
        scratch.close()


@contextmanager
def guest_environment(files: Iterable[Path | str | Device]) -> Iterator[dict[str, str]]:
    """Yield the environment variables of a guest application on an emulated bus with one device per file.

    The guest gets its own runtime directory, which is removed at the end with all files of the guest. A path gives a
    writable device; a Device may be read-only.
    """
    with _guest(files) as guest:
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
    """Run a command as a guest with these devices and return its exit status (128 + N for signal N).

    SIGINT, SIGTERM, SIGHUP and SIGQUIT are forwarded to the command.

    - slow: factor by which the command is slowed down; its process group is stopped (SIGSTOP) most of the time.
    - kill: kill its process group (SIGKILL) after a random time of up to so many seconds, determined by `seed`, and
      restart it `repeat` times on the same bus, with the files of the previous run. There is no restart after a run
      that fails by itself or that was ended by a forwarded signal.
    - follow: called every 0.1 s; devices that it returns and the bus lacks are plugged.

    With slow or kill the command gets its own process group and cannot read from a terminal. Raises Invalid if a value
    is out of range.
    """
    faults = FaultInjection(slow, kill, seed, repeat)
    status = 0
    with _guest(devices) as guest, relay_signals() as relay, _following(guest.bus, follow):
        environment = {**(os.environ if env is None else env), **guest.env}
        stdin = subprocess.DEVNULL if faults.active and os.isatty(0) else None
        group = 0 if faults.active else None
        for lifetime in faults.lifetimes():
            process = subprocess.Popen(
                command, env=environment, stdin=stdin, process_group=group, pass_fds=[guest.lock]
            )
            relay.attach(process, whole_group=faults.active)
            killed = faults.supervise(process, lifetime)
            status = process.wait()
            relay.detach()
            if relay.received or (status and not killed):
                break
    return status if status >= 0 else 128 - status


@contextmanager
def _following(bus: EmulatedBus, devices: Callable[[], Iterable[Device]] | None) -> Iterator[None]:
    """Plug new devices of a guest into the bus until the context ends; without a callback do nothing."""
    if devices is None:
        yield
        return
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(_FOLLOW_INTERVAL):
            try:
                bus.give(devices())
            except (EalError, OSError) as error:  # the host closes the metadata file when it ends
                log.debug("cannot list the devices of the guest: %s", error)

    thread = threading.Thread(target=poll, name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
