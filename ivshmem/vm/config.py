# SPDX-License-Identifier: BSD-3-Clause
"""VmConfig: the configuration of one VM run, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from eal.errors import Invalid


@dataclass(frozen=True)
class VmConfig:
    """What to boot and which command to run in the guest.

    command      program and arguments; paths of the host are valid, a bare name is looked up in the guest's PATH
    qemu_args    further QEMU options: devices (slot 0x1e of pcie.0 is occupied), -numa, ...
    smp          number of virtual CPUs; under TCG at least 2
    memory       guest memory in MiB
    env          environment of the command, added to GUEST_ENV; the host's environment is not inherited
    kernel_args  further kernel parameters, such as "hugepages=16"
    qmp          path of QEMU's QMP socket; it exists when `start` returns
    machine      QEMU's -machine
    accel        "kvm", "tcg" or "auto"; None: $IVSHMEM_ACCEL, or "auto" if that is not set
    timeout      seconds from `start` until the command must have ended
    """

    command: Sequence[str]
    _: KW_ONLY
    qemu_args: Sequence[str] = ()
    smp: int = 2
    memory: int = 512
    env: Mapping[str, str] = field(default_factory=dict)
    kernel_args: Sequence[str] = ()
    qmp: Path | None = None
    machine: str = "q35"
    accel: str | None = None
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if isinstance(self.command, str) or not self.command:
            raise Invalid(f"command must be a list of a program and its arguments, got {self.command!r}")
        for word in (*self.command, *self.env, *self.env.values()):
            if "\0" in word:
                raise Invalid(f"command and env must not contain NUL, got {word!r}")
        for name in self.env:
            if not name or "=" in name:
                raise Invalid(f"name of an environment variable must be non-empty and without '=', got {name!r}")
        if self.smp < 1:
            raise Invalid(f"smp must be >= 1, got {self.smp}")
        if self.memory < 128:
            raise Invalid(f"memory must be >= 128 MiB, got {self.memory}")
