# SPDX-License-Identifier: BSD-3-Clause
"""Guest process of the demo: start guest.py on an emulated bus or in a virtual machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from eal.errors import Stalled
from ivshmem.emulate.runner import guest_environment
from ivshmem.metadata.metadata import Metadata

if TYPE_CHECKING:
    from ivshmem.vm.vm import VM

_COMMAND = [sys.executable, "-P", str(Path(__file__).with_name("guest.py"))]


class Guest(Protocol):
    """A running guest."""

    def alive(self) -> bool: ...

    def finish(self, timeout: float) -> tuple[int, str]:
        """Wait up to `timeout` seconds for the end; return exit status and output. Raises Stalled on timeout."""


class _Process:
    """A guest as a process of this machine."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def alive(self) -> bool:
        return self._process.poll() is None

    def finish(self, timeout: float) -> tuple[int, str]:
        try:
            output, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise Stalled(f"guest did not end within {timeout:g} s") from error
        return self._process.returncode, output


class _Machine:
    """A guest as a virtual machine."""

    def __init__(self, vm: VM) -> None:
        self._vm = vm

    def alive(self) -> bool:
        return self._vm.alive()

    def finish(self, timeout: float) -> tuple[int, str]:
        result = self._vm.wait(timeout)
        return result.status, result.output


@contextmanager
def emulated_guest(metadata: Metadata) -> Iterator[Guest]:
    """Run the guest on an emulated bus; kill it at the end."""
    with guest_environment(metadata.devices()) as env:
        process = subprocess.Popen(_COMMAND, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
        try:
            yield _Process(process)
        finally:
            process.kill()
            process.wait()


@contextmanager
def vm_guest(metadata: Metadata) -> Iterator[Guest]:
    """Run the guest in a virtual machine; end the VM at the end."""
    from ivshmem.vm.config import VmConfig
    from ivshmem.vm.vm import VM

    with VM(VmConfig(_COMMAND, qemu_args=metadata.qemu_args(), timeout=300.0)) as vm:
        yield _Machine(vm)
