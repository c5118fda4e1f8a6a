# SPDX-License-Identifier: BSD-3-Clause
"""Accelerator: choose KVM if it can boot a guest on this machine, TCG otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from eal.errors import Invalid
from ivshmem.vm.command import ACCELERATORS
from ivshmem.vm.image import cache_dir


def choose(requested: str | None, kvm_works: Callable[[], bool]) -> str:
    """Return "kvm" or "tcg". `requested` is one of these, "auto", or None for $IVSHMEM_ACCEL.

    "auto" calls `kvm_works`, which boots a guest, and stores the result in the cache until the host reboots. An open of
    /dev/kvm is not sufficient: some nested and paravirtual hosts offer a KVM that cannot run a stock kernel. Raises
    Invalid for another name.
    """
    requested = requested or os.environ.get("IVSHMEM_ACCEL") or "auto"
    if requested in ACCELERATORS:
        return requested
    if requested != "auto":
        raise Invalid(f"accel (or $IVSHMEM_ACCEL) must be kvm, tcg or auto, got {requested!r}")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    result = result_file()
    if not result.exists():
        name = "kvm" if kvm_works() else "tcg"
        for old in cache_dir().glob("accel-*"):
            old.unlink(missing_ok=True)
        result.write_text(name)
    return result.read_text()


def result_file() -> Path:
    """Return the path of the stored accelerator name; the file exists after the first "auto" since the last boot."""
    return cache_dir() / f"accel-{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
