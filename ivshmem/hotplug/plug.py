# SPDX-License-Identifier: BSD-3-Clause
"""Hotplug of a share: plug a metadata file with its segments into a running VM, and unplug it.

| state        | entered by                             | next                                                      |
|--------------|----------------------------------------|-----------------------------------------------------------|
| unplugged    | QEMU's event for each device           | plugged by plug                                           |
| plugged      | each device has an address             | plugged by a new segment; announced by unplug             |
| announced    | unplug writes the announcement         | acknowledged; plugged if a guest does not respond         |
| acknowledged | every guest process has detached, or   | unplugged; plugged if the guest kernel keeps a device     |
|              | the unplug is forced                   |                                                           |

Prohibited: remove a device before the announcement; publish a segment before each attached VM has it; reuse a slot or
id before QEMU's event. The caller of each function holds the prefix's CHANGE lock.
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
from ivshmem.hotplug.hotplug_vm import HotplugVm, VmDevice
from ivshmem.hotplug.pci_windows import PlacedDevice
from ivshmem.hotplug.qmp import Qmp
from ivshmem.hotplug.share import HostShare
from ivshmem.hotplug.stale_devices import StaleDevices
from ivshmem.hotplug.unplug_handshake import announce_unplug, withdraw_announcement
from ivshmem.vmm.device import Device, id_of, segment_device

log = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds for the guest processes to acknowledge, and for the guest kernel to add or remove a device


# --- plug -------------------------------------------------------------------------------------------------------


def plug_share(share: HostShare, qmp_path: str | os.PathLike[str], timeout: float = TIMEOUT) -> list[PlacedDevice]:
    """Plug the missing devices of a share into a VM, and return where they were plugged. See `Metadata.plug`."""
    devices = share.devices()
    with Qmp(qmp_path) as qmp:
        hotplug_vm = HotplugVm(qmp, timeout)
        present = hotplug_vm.devices()
        missing = [device for device in devices if not _has(present, device)]
        vm = AttachedVm.of(qmp.path, qmp.pid)
        was_attached = vm in share.vms.read()
        # Recorded first: if this process is killed, a superfluous record is harmless, but a VM without a record would
        # not get new segments.
        share.vms.add(vm)
        try:
            if share.file.leaving:  # the process that announced an unplug was killed during it
                withdraw_announcement(share.file)
            placements = []
            if missing:
                hotplug_vm.check_running()
                placements = hotplug_vm.plug(missing)
        except BaseException:
            if not was_attached:
                share.vms.remove(qmp.path)
            raise
        stale = StaleDevices(share.directory, present, qmp.pid)
        try:
            stale.remove(hotplug_vm, timeout)
        except EalError as error:
            log.warning("metadata %r is plugged, but stale devices remain in the VM: %s", share.name, error)
        return placements


@contextmanager
def plug_segments(share: HostShare, records: Sequence[SegmentRecord]) -> Iterator[None]:
    """Plug new segments into each attached VM; the block then publishes them.

    If a VM or the block raises, the segments are unplugged again.
    """
    if not records:
        yield
        return
    paths = {record.uuid: record.path for record in share.registry.segments}
    devices = [segment_device(share.uuid, replace(record, path=paths[record.uuid])) for record in records]
    with ExitStack() as rollback:
        share.vms.remove_ended()
        for vm in share.vms.read():
            if missing := _plug_missing(share, vm, devices):
                rollback.callback(_unplug_devices, vm, missing)
        yield
        rollback.pop_all()


def _plug_missing(share: HostShare, vm: AttachedVm, devices: Sequence[Device]) -> list[Device]:
    """Plug the missing ones of some devices into a VM and return them. Remove the record of a VM without the share."""
    with Qmp(vm.qmp) as qmp:
        hotplug_vm = HotplugVm(qmp, TIMEOUT)
        present = hotplug_vm.devices()
        if not any(one.path == share.path for one in present):
            share.vms.remove(vm.qmp)
            return []
        missing = [device for device in devices if not _has(present, device)]
        if missing:
            hotplug_vm.check_running()
            hotplug_vm.plug(missing)
        return missing


def _has(present: Sequence[VmDevice], device: Device) -> bool:
    """Return whether a VM has a file with the required access, no matter which host plugged it."""
    return any(one.path == device.path and (device.readonly or not one.readonly) for one in present)


# --- unplug -----------------------------------------------------------------------------------------------------


def unplug_share(
    share: HostShare, qmp_path: str | os.PathLike[str], timeout: float = TIMEOUT, *, force: bool = False
) -> list[VmDevice]:
    """Unplug a share from a VM, and return the removed devices. See `Metadata.unplug`."""
    share.vms.remove_ended()
    with Qmp(qmp_path) as qmp:
        hotplug_vm = HotplugVm(qmp, timeout)
        metadata, segments = devices_to_remove(share, hotplug_vm.devices())
        if not metadata and not segments:
            share.vms.remove(qmp.path)
            raise NotFound(f"{hotplug_vm.label} does not have metadata {share.name!r}")
        if not force:
            hotplug_vm.check_running()
        announce_unplug(share.file, share.segments(), share.vms.next_announcement(), timeout, force=force)
        try:
            for batch in (metadata, segments):
                hotplug_vm.unplug([(one.id, one.backend) for one in batch])
        finally:
            withdraw_announcement(share.file)
        share.vms.remove(qmp.path)
        return [*metadata, *segments]


def unplug_segments(share: HostShare, records: Sequence[SegmentRecord]) -> None:
    """Unplug segments that a share no longer contains from the attached VMs. Log the devices that remain."""
    devices = [segment_device(share.uuid, record) for record in records]
    for vm in share.vms.read():
        if devices and not vm.gone:
            _unplug_devices(vm, devices)


def _unplug_devices(vm: AttachedVm, devices: Sequence[Device]) -> None:
    try:
        with Qmp(vm.qmp) as qmp:
            hotplug_vm = HotplugVm(qmp, TIMEOUT)
            present = {one.backend for one in hotplug_vm.devices()}
            hotplug_vm.unplug([(device.device_id, device.id) for device in devices if device.id in present])
    except EalError as error:
        log.error("devices %s remain in the VM at %s: %s", ", ".join(device.id for device in devices), vm.qmp, error)


def devices_to_remove(share: HostShare, present: Sequence[VmDevice]) -> tuple[list[VmDevice], list[VmDevice]]:
    """Return the devices of a share's metadata file and of the segments that no other share of the VM needs.

    A segment's device that was plugged for another share is included if only this share still needs it.
    """
    own_id = id_of(share.uuid)
    metadata = [one for one in present if one.backend == own_id]
    segments = [one for one in present if one.backend.startswith(f"{own_id}-")]
    needs = _needs_of_other_shares(share, present)
    if needs is None or not (metadata or segments):
        return metadata, []
    paths = {record.path: record.uuid for record in share.segments() if record.path}
    segments += [one for one in present if one.backend.startswith("ivs-") and one.path in paths and one not in segments]
    removed: list[VmDevice] = []
    for one in segments:
        uuid = paths.get(one.path)
        others = [other for other in present if other.path == one.path and other is not one and other not in removed]
        if uuid not in needs or any(needs[uuid] or not other.readonly for other in others):
            removed.append(one)
    return metadata, removed


def _needs_of_other_shares(share: HostShare, present: Sequence[VmDevice]) -> dict[UUID | None, bool] | None:
    """Return the segments that other shares of the VM need, and whether read-only access is sufficient for all of them.

    None if the metadata file of another share is unreadable, so that its needs are unknown.
    """
    needs: dict[UUID | None, bool] = {}
    for one in present:
        if not _is_metadata(one) or one.path == share.path:
            continue
        try:
            file = open_metadata(Path(one.path))
        except EalError as error:
            log.warning("segments of metadata %r remain, because other metadata may need them: %s", share.name, error)
            return None
        for record in file.read().segments:
            needs[record.uuid] = needs.get(record.uuid, True) and record.readonly
        file.mapping.release()
    return needs


def _is_metadata(device: VmDevice) -> bool:
    """Return whether a device is that of a metadata file: a segment's id has a second hyphen and more digits."""
    return device.backend.startswith("ivs-") and device.backend.count("-") == 1
