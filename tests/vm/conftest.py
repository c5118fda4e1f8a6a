# SPDX-License-Identifier: BSD-3-Clause
"""Guests for tests: a script of tests/guests, run on the emulated bus or in a virtual machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

import ivshmem
from ivshmem.emulate.runner import guest_environment
from ivshmem.vm.config import VmConfig
from ivshmem.vm.vm import VM
from ivshmem.vmm.device import Device, merge

SCRIPTS = Path(__file__).parents[1] / "guests"
FIRST_EXTRA_SLOT = 0x10  # slot of pcie.0: above those that QEMU assigns, below the harness's own
PATIENCE = 120.0  # seconds for one step of a guest; a VM shares its two cores with the host's side


class Guest(ABC):
    """A running guest. `hear` returns the JSON objects that its script prints, one per line.

    `addresses` are the PCI addresses of the extra devices that it was given. `in_vm` is True where hardware enforces
    the rules, such as a read-only share.
    """

    in_vm: bool
    addresses: dict[Path, str]

    @abstractmethod
    def alive(self) -> bool:
        """Return whether its script still runs."""

    @abstractmethod
    def _lines(self, timeout: float) -> Iterator[str]:
        """Yield lines of its output until it ends, starting after the last one that was yielded."""

    @abstractmethod
    def _status(self) -> int:
        """Return its exit status after it has ended."""

    @abstractmethod
    def _output(self) -> str:
        """Return its whole output so far, for messages."""

    def hear(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return its next JSON object."""
        for line in self._lines(timeout):
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise AssertionError(
            f"the guest printed nothing more and ended with status {self._status()}:\n{self._output()}"
        )

    def end(self, status: int = 0) -> list[dict[str, Any]]:
        """Wait until it ends with this status; return the JSON objects that were not returned yet."""
        rest = [json.loads(line) for line in self._lines(PATIENCE) if line.startswith("{")]
        assert self._status() == status, self._output()
        return rest

    def while_alive(self, step: Callable[[], bool]) -> None:
        """Call `step` until it returns True. Fail if the guest ends, or after the time limit."""
        deadline = time.monotonic() + PATIENCE
        while not step():
            if not self.alive():
                raise AssertionError(f"the guest ended early with status {self._status()}:\n{self._output()}")
            assert time.monotonic() < deadline, f"not done within {PATIENCE} s:\n{self._output()}"
            time.sleep(0.0002)


class EmulatedGuest(Guest):
    """A guest as a process of this machine, on an emulated bus."""

    in_vm = False

    def __init__(self, undo: contextlib.ExitStack, command: Sequence[str], files: Sequence[Path | Device]) -> None:
        env = undo.enter_context(guest_environment(files))
        self.sysfs = Path(env["EAL_SYSFS_ROOT"])
        devices = (self.sysfs / "bus/pci/devices").iterdir()
        self.addresses = {(device / "resource2").readlink(): device.name for device in devices}
        self._path = Path(undo.enter_context(tempfile.TemporaryDirectory())) / "output"
        self._write: IO[bytes] = undo.enter_context(open(self._path, "wb"))
        self._read: IO[str] = undo.enter_context(open(self._path))
        self._half = ""
        self._command = command
        self._env = {**os.environ, **env}
        self._undo = undo

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=self._write, stderr=self._write
        )
        self._undo.callback(self._process.wait)
        self._undo.callback(self._process.kill)

    def alive(self) -> bool:
        return self._process.poll() is None

    def _lines(self, timeout: float) -> Iterator[str]:
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.alive()  # poll before reading, so that all output of an ended process is read
            self._half += self._read.readline()
            if self._half.endswith("\n"):
                line, self._half = self._half[:-1], ""
                yield line
            elif ended:
                return
            else:
                assert time.monotonic() < deadline, f"silent for {timeout} s:\n{self._output()}"
                time.sleep(0.005)

    def _status(self) -> int:
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def _output(self) -> str:
        return self._path.read_text(errors="replace")


class VmGuest(Guest):
    """A guest as a virtual machine."""

    in_vm = True

    def __init__(
        self, undo: contextlib.ExitStack, command: Sequence[str], qemu_args: Sequence[str], qmp: Path | None = None
    ) -> None:
        self.addresses = {}
        self.qmp = qmp
        self._undo = undo
        self._heard: list[str] = []
        self._vm = VM(VmConfig(command, qemu_args=qemu_args, qmp=qmp, timeout=2 * PATIENCE))

    def start(self) -> None:
        self._undo.enter_context(self._vm)

    def alive(self) -> bool:
        return self._vm.alive()

    def _lines(self, timeout: float) -> Iterator[str]:
        for line in self._vm.lines(timeout):
            self._heard.append(line)
            yield line

    def _status(self) -> int:
        return self._vm.wait().status

    def _output(self) -> str:
        with contextlib.suppress(Exception):
            return self._vm.wait(0).output
        return "\n".join(self._heard)


# --- starting a guest ---------------------------------------------------------------------------------------


def extra_device(file: Path, slot: int) -> list[str]:
    """Return options for a plain ivshmem device over any file, as another project might use it."""
    path = str(file).replace(",", ",,")
    backend = f"memory-backend-file,id=extra{slot},size={file.stat().st_size},mem-path={path},share=on"
    return ["-object", backend, "-device", f"ivshmem-plain,memdev=extra{slot},addr={slot:#x}"]


def emulated(
    undo: contextlib.ExitStack,
    command: Sequence[str],
    metadata: Sequence[ivshmem.Metadata],
    files: Sequence[Path],
    concatenated: bool,
) -> EmulatedGuest:
    devices = [device for one in metadata for device in one.devices()]
    guest = EmulatedGuest(undo, command, [*(devices if concatenated else merge(devices)), *files])
    guest.addresses = {file: guest.addresses[file] for file in files}
    return guest


def virtual(
    undo: contextlib.ExitStack,
    command: Sequence[str],
    metadata: Sequence[ivshmem.Metadata],
    files: Sequence[Path],
    concatenated: bool,
    others: Sequence[str],
) -> VmGuest:
    slots = {file: FIRST_EXTRA_SLOT + i for i, file in enumerate(files)}
    args = [word for file, slot in slots.items() for word in extra_device(file, slot)]
    if concatenated:
        args += [word for one in metadata for word in one.qemu_args()]
    else:
        args += ivshmem.qemu_args(*metadata)
    guest = VmGuest(undo, command, [*args, *(word for model in others for word in ("-device", model))])
    guest.addresses = {file: f"0000:00:{slot:02x}.0" for file, slot in slots.items()}
    return guest


def add_others(guest: EmulatedGuest, others: Sequence[str]) -> None:
    """Add other devices to an emulated bus: directories with the ids of other models."""
    for number, model in enumerate(others):
        device = guest.sysfs / f"bus/pci/devices/0000:7f:{number:02x}.0"
        device.mkdir()
        for name, text in {"vendor": "0x8086", "device": "0x100e", "enable": "0", "model": model}.items():
            (device / name).write_text(f"{text}\n")
        (device / "resource2").write_bytes(os.urandom(8192))


@pytest.fixture(params=["emulated", pytest.param("vm", marks=pytest.mark.vm)])
def guest(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`guest(script, *metadata, ...)` starts tests/guests/`script`.py as a guest with these metadata files.

    arguments     arguments of the script
    files         further ivshmem devices, one over each of these files
    others        QEMU's names of devices of other kinds
    concatenated  concatenate the options of the metadata files instead of planning them together

    Every guest is ended after the test.
    """
    with contextlib.ExitStack() as undo:

        def start(
            script: str,
            *metadata: ivshmem.Metadata,
            arguments: Sequence[object] = (),
            files: Sequence[Path] = (),
            others: Sequence[str] = (),
            concatenated: bool = False,
        ) -> Guest:
            command = [sys.executable, "-P", str(SCRIPTS / f"{script}.py"), *map(str, arguments)]
            started: EmulatedGuest | VmGuest
            if request.param == "vm":
                started = virtual(undo, command, metadata, files, concatenated, others)
            else:
                started = emulated(undo, command, metadata, files, concatenated)
                add_others(started, others)
            started.start()
            return started

        yield start


@pytest.fixture
def plug_guest(tmp_path: Path) -> Iterator[Callable[..., VmGuest]]:
    """`plug_guest(script, *metadata, plug="1G")` starts tests/guests/`script`.py in a VM with these metadata files and
    room to plug this size through the QMP socket `qmp`; `qemu_args` replaces the options. Every VM is ended after the
    test.
    """
    with contextlib.ExitStack() as undo:

        def start(script: str, *metadata: ivshmem.Metadata, plug: str = "1G", qemu_args: Sequence[str] = ()) -> VmGuest:
            command = [sys.executable, "-P", str(SCRIPTS / f"{script}.py")]
            started = VmGuest(undo, command, qemu_args or ivshmem.qemu_args(*metadata, plug=plug), tmp_path / "qmp")
            started.start()
            return started

        yield start
