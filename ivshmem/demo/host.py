# SPDX-License-Identifier: BSD-3-Clause
"""Host side of the demo: exchange messages with a guest through a mempool and two rings, and check every byte."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import eal
from eal.errors import EalError, Invalid, Stalled
from ivshmem.demo.exchange import FAULTS, Exchange
from ivshmem.demo.guest_process import Guest, emulated_guest, vm_guest
from ivshmem.demo.objects import Objects, create, describe, share
from ivshmem.demo.result import DemoResult
from ivshmem.metadata.create import metadata_create

_EMULATED_START_TIMEOUT = 30.0  # seconds until the guest must have attached
_VM_START_TIMEOUT = 120.0
_END_TIMEOUT = 30.0  # seconds until the guest must have ended after the last message


def run(
    *,
    messages: int,
    size: int,
    vm: bool = False,
    file_prefix: str | None = None,
    fault: str | None = None,
    on_start: Callable[[DemoResult], None] = lambda _: None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> DemoResult:
    """Run the demo with `messages` messages of `size` bytes and return its result.

    `fault` injects one fault: "corrupt", "drop" or "swap". `on_start` is called when all objects exist and before the
    guest starts; `on_progress` with the number of answers received so far. Faults of messages are listed in the result.
    Raises EalError if the guest does not start or the objects cannot be created.
    """
    if fault is not None and fault not in FAULTS:
        raise Invalid(f"fault must be one of {', '.join(FAULTS)}, got {fault!r}")
    name = f"demo{os.getpid()}"
    with eal.init(file_prefix=file_prefix or name) as host:
        objects = create(messages, size)
        metadata = metadata_create(name)
        share(metadata, objects)
        result = DemoResult(
            mode="vm" if vm else "emulated",
            messages=messages,
            size=size,
            created={"file_prefix": host.file_prefix, "metadata": name, **describe(objects)},
            cmdline=metadata.cmdline(),
        )
        on_start(result)
        with (vm_guest if vm else emulated_guest)(metadata) as guest:
            _wait_until_ready(guest, objects, _VM_START_TIMEOUT if vm else _EMULATED_START_TIMEOUT)
            Exchange(objects, guest, result, fault).run(on_progress)
            objects.control["host_done"] = 1
            _collect(guest, result)
        _check_pool(objects, result)
        result.ok = not result.faults
    return result


def _wait_until_ready(guest: Guest, objects: Objects, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not objects.control["guest_ready"]:
        if not guest.alive():
            status, output = guest.finish(5.0)
            raise EalError(f"guest ended with status {status} before it was ready: {output.strip()[-2000:]}")
        if time.monotonic() > deadline:
            raise Stalled(f"guest was not ready within {timeout:g} s")
        time.sleep(0.005)


def _collect(guest: Guest, result: DemoResult) -> None:
    """Wait for the end of the guest and store its report."""
    status, output = guest.finish(_END_TIMEOUT)
    lines = output.strip().splitlines()
    try:
        result.guest = json.loads(lines[-1])
    except (IndexError, ValueError):
        result.faults.append(f"guest printed no report: {output.strip()[-500:]!r}")
    if status:
        result.faults.append(f"guest ended with status {status}")
    result.faults += [f"guest: {fault}" for fault in result.guest.get("faults", [])]


def _check_pool(objects: Objects, result: DemoResult) -> None:
    result.pool_size = objects.pool.n
    result.pool_available = objects.pool.available
    if result.pool_available != result.pool_size:
        result.faults.append(f"{result.pool_size - result.pool_available} objects were not returned to the pool")
    if not objects.pool.audit().ok:
        result.faults.append("pool audit found an object in two places")
