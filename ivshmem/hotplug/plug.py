# SPDX-License-Identifier: BSD-3-Clause
"""Plugging: a metadata with its segments goes into a running VM, and comes out again.

| state     | comes by            | then                                                              |
|-----------|---------------------|-------------------------------------------------------------------|
| outside   | unplug              | plug                                                              |
| plugged   | plug                | plug (does the difference), unplug, `carry` of one more segment   |
| announced | unplug has begun    | plugged again, if a guest does not let go and force is not given  |
| leaving   | every guest let go  | outside, when QEMU has said that each device is gone              |

Never: a device removed before it was announced, a segment published before each VM has it, a slot or an id used again
before QEMU's event. All functions are called with the prefix's CHANGE lock held.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from eal.errors import EalError, NotFound
from eal.metadata.lookup import open_metadata
from eal.metadata.records import SegmentRecord
from ivshmem.hotplug.attached_vms import AttachedVm
from ivshmem.hotplug.pci_windows import Placement
from ivshmem.hotplug.qmp import Qmp
from ivshmem.hotplug.running_vm import RunningVm, VmDevice
from ivshmem.hotplug.share import HostShare
from ivshmem.hotplug.stale_devices import StaleDevices
from ivshmem.hotplug.unplug_handshake import announce, is_leaving, set_leaving
from ivshmem.vmm.device import Device, id_of, segment_device

log = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds for a guest to let go, and again for its kernel to take or give a device


# --- in ---------------------------------------------------------------------------------------------------------


def plug(share: HostShare, qmp_path: str | os.PathLike[str], timeout: float = TIMEOUT) -> list[Placement]:
    """Plugs what a VM lacks of a metadata; gives what was plugged and where. See `Metadata.plug`."""
    devices = share.devices()
    with Qmp(qmp_path) as qmp:
        machine = RunningVm(qmp, timeout)
        given = machine.given()
        lacking = [device for device in devices if not _has(given, device)]
        vm = AttachedVm.of(qmp.path, qmp.pid)
        known = vm in share.vms.known()
        share.vms.remember(
            vm
        )  # first: one that is remembered in vain is forgotten, one that is forgotten lacks segments
        try:
            if is_leaving(share.file):  # whoever announced that was killed before the end
                set_leaving(share.file, 0)
            places = []
            if lacking:
                machine.check_running()
                places = machine.plug(lacking)
        except BaseException:
            if not known:
                share.vms.forget(qmp.path)
            raise
        _clear(share, machine, StaleDevices(share.directory, given, qmp.pid), timeout)
        return places


def _clear(share: HostShare, machine: RunningVm, wreck: StaleDevices, timeout: float) -> None:
    """What an earlier life of the prefix left in the VM goes, now that its successor is there."""
    try:
        wreck.remove(machine, timeout)
    except EalError as error:
        log.warning("metadata %r is plugged, but what its dead host had plugged stays: %s", share.name, error)


@contextmanager
def carry(share: HostShare, records: Sequence[SegmentRecord]) -> Iterator[None]:
    """Gives more segments to each VM that has the metadata; then the caller may publish them. What was plugged is taken
    back where the caller, or one of the VMs, fails.
    """
    paths = {record.uuid: record.path for record in share.registry.segments}
    devices = [segment_device(share.uuid, replace(record, path=paths[record.uuid])) for record in records]
    with ExitStack() as undo:
        for vm in share.vms.known():
            if vm.gone:
                log.info("metadata %r: the VM at %s is gone and forgotten", share.name, vm.qmp)
                share.vms.forget(vm.qmp)
            elif lacking := _carry_to(share, vm, devices):
                undo.callback(_take_back, vm, lacking)
        yield
        undo.pop_all()


def _carry_to(share: HostShare, vm: AttachedVm, devices: Sequence[Device]) -> list[Device]:
    """The devices that the VM had to be given. Forgets one that does not have the metadata any more."""
    with Qmp(vm.qmp) as qmp:
        machine = RunningVm(qmp, TIMEOUT)
        given = machine.given()
        if not any(one.path == share.path for one in given):
            share.vms.forget(vm.qmp)
            return []
        lacking = [device for device in devices if not _has(given, device)]
        if lacking:
            machine.check_running()
            machine.plug(lacking)
        return lacking


def take_back(share: HostShare, records: Sequence[SegmentRecord]) -> None:
    """Takes segments that a metadata has no more out of the VMs that were given them. What does not go is logged."""
    devices = [segment_device(share.uuid, record) for record in records]
    for vm in share.vms.known():
        if not vm.gone:
            _take_back(vm, devices)


def _take_back(vm: AttachedVm, devices: Sequence[Device]) -> None:
    try:
        with Qmp(vm.qmp) as qmp:
            machine = RunningVm(qmp, TIMEOUT)
            there = {one.backend for one in machine.given()}
            machine.unplug([(device.device_id, device.id) for device in devices if device.id in there])
    except EalError as error:
        log.error("the VM at %s keeps %s: %s", vm.qmp, ", ".join(device.id for device in devices), error)


def _has(given: list[VmDevice], device: Device) -> bool:
    """Whether a VM has a file already, from whomever, and may write to it if it is to."""
    return any(one.path == device.path and (device.readonly or not one.readonly) for one in given)


# --- out --------------------------------------------------------------------------------------------------------


def unplug(
    share: HostShare, qmp_path: str | os.PathLike[str], timeout: float = TIMEOUT, *, force: bool = False
) -> list[VmDevice]:
    """Takes a metadata out of a VM; gives what was removed. See `Metadata.unplug`."""
    for vm in share.vms.known():
        if vm.gone:
            share.vms.forget(vm.qmp)
    with Qmp(qmp_path) as qmp:
        machine = RunningVm(qmp, timeout)
        mine, segments = to_remove(share, machine.given())
        if not mine and not segments:
            share.vms.forget(qmp.path)
            raise NotFound(f"{machine.what} does not have metadata {share.name!r}")
        if not force:
            machine.check_running()
        announce(share.file, share.segments(), share.vms.next_announcement(), timeout, force=force)
        try:
            for batch in (mine, segments):
                machine.unplug([(one.id, one.backend) for one in batch])
        finally:
            set_leaving(share.file, 0)
        share.vms.forget(qmp.path)
        return [*mine, *segments]


def to_remove(share: HostShare, given: list[VmDevice]) -> tuple[list[VmDevice], list[VmDevice]]:
    """What a VM has of a metadata and nobody else there needs: the metadata itself, and devices of segments. One of
    these that another metadata brought is among them, if that has left it behind for this one.
    """
    own = id_of(share.uuid)
    mine = [one for one in given if one.backend == own]
    segments = [one for one in given if one.backend.startswith(f"{own}-")]
    paths = {record.path: record.uuid for record in share.segments() if record.path}
    needs = _needs_of_others(given, share)
    if needs is None or not (mine or segments):
        return mine, []
    segments += [one for one in given if one.backend.startswith("ivs-") and one.path in paths and one not in segments]
    removed: list[VmDevice] = []
    for one in segments:
        uuid = paths.get(one.path)
        others = [each for each in given if each.path == one.path and each is not one and each not in removed]
        if uuid not in needs or any(needs[uuid] or not each.readonly for each in others):
            removed.append(one)
    return mine, removed


def _needs_of_others(given: list[VmDevice], share: HostShare) -> dict[UUID | None, bool] | None:
    """The segments that other metadata of a VM need, and whether reading is enough for all of them; None where one of
    those metadata cannot be read any more, so that anything may be needed.
    """
    needs: dict[UUID | None, bool] = {}
    for one in given:
        if not _is_metadata(one) or one.path == share.path:
            continue
        try:
            file = open_metadata(Path(one.path))
        except EalError as error:
            log.warning("no segment of metadata %r is removed, for it may be another one's: %s", share.name, error)
            return None
        for record in file.read().segments:
            needs[record.uuid] = needs.get(record.uuid, True) and record.readonly
        file.mapping.release()
    return needs


def _is_metadata(one: VmDevice) -> bool:
    """By the id that ours have: "ivs-" and 12 digits, without a segment's behind it."""
    return one.backend.startswith("ivs-") and one.backend.count("-") == 1
