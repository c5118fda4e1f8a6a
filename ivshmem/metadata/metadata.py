# SPDX-License-Identifier: BSD-3-Clause
"""Metadata: a table of the objects that a host shares with VMs, in a file that each of these VMs gets as a device."""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from eal.errors import Closed, Exists, Invalid, InvalidType
from eal.lifecycle.eal import Eal
from eal.memory.memzone import Memzone
from eal.mempool.mempool import Mempool
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.metadata.table_file import TableFile
from eal.ring.ring import Ring
from ivshmem.hotplug.attached_vms import AttachedVms
from ivshmem.hotplug.plug import plug_segments, plug_share, unplug_segments, unplug_share
from ivshmem.hotplug.share import HostShare
from ivshmem.metadata.dump import dump_table
from ivshmem.metadata.exposure import Exposed, ExposureCheck, exposure_of
from ivshmem.metadata.names import remove_files
from ivshmem.vmm import libvirt, qemu
from ivshmem.vmm.device import Device, devices_of, merge


class Metadata:
    """The metadata of one VM or one purpose (DPDK: struct rte_ivshmem_metadata); created by `metadata_create`.

    Every `add_*` either succeeds completely or raises and changes nothing. The file is removed when the metadata or
    its Eal is closed.
    """

    def __init__(self, owner: Eal, path: Path, link: Path, file: TableFile) -> None:
        self.name = file.info.name
        self.uuid = file.info.uuid
        self.path = str(path)
        self.isolated = False  # True: an `add_*` that exposes zones outside the metadata raises Invalid
        self._link = link
        self._file: TableFile | None = file
        self._owner = owner
        self._exposure_check = ExposureCheck()
        owner.adopt(self)

    # --- add objects --------------------------------------------------------------------------------------

    def add_memzone(self, zone: Memzone, *, readonly: bool = False) -> None:
        """Add a memzone; with `readonly` the VM gets its segment read-only (DPDK: rte_ivshmem_metadata_add_memzone).

        Raise Exists if the metadata already has the object; Invalid if it overlaps another object of the metadata, is
        not in a segment of this Eal, or its segment is already shared with the other access; NoMemory if the file is
        full. Warn with ExposureWarning, once per zone, if the VM can now reach zones that are not in the metadata;
        raise Invalid instead if the metadata is `isolated`.
        """
        self._add([_zone_and_entry(zone, (Memzone,), f"metadata {self.name!r}")], readonly)

    def add_ring(self, ring: Ring, *, readonly: bool = False) -> None:
        """Add a ring; with `readonly` the VM can inspect it, and its enqueue and dequeue raise Denied.

        Raise and warn as `add_memzone` (DPDK: rte_ivshmem_metadata_add_ring).
        """
        self._add([_zone_and_entry(ring, (Ring,), f"metadata {self.name!r}")], readonly)

    def add_mempool(self, pool: Mempool, *, readonly: bool = False) -> None:
        """Add a mempool; with `readonly` the VM can read its objects, and its get and put raise Denied.

        Raise and warn as `add_memzone` (DPDK: rte_ivshmem_metadata_add_mempool).
        """
        self._add([_zone_and_entry(pool, (Mempool,), f"metadata {self.name!r}")], readonly)

    def add(self, *objects: Memzone | Ring | Mempool, readonly: bool = False) -> None:
        """Add memzones, rings and mempools in one step: all of them or, if it raises, none.

        Raise and warn as `add_memzone`, but do not warn of the exposure of zones that are added in the same call.
        """
        kinds = (Memzone, Ring, Mempool)
        self._add([_zone_and_entry(one, kinds, f"metadata {self.name!r}") for one in objects], readonly)

    def _add(self, added: Sequence[tuple[Memzone, Entry]], readonly: bool) -> None:
        with self.shared() as share:
            old = table = share.file.read()
            for zone, entry in added:
                record = _segment_record(zone, share.registry, f"metadata {self.name!r}", self._owner.file_prefix)
                table = _with_entry(table, record, entry, readonly, f"metadata {self.name!r}")
            self._exposure_check.check(share, table, [zone for zone, _ in added], isolated=self.isolated)
            with plug_segments(share, table.segments[len(old.segments) :]):
                share.file.publish(table)

    def drop(self, obsolete: Container[tuple[Kind, str]]) -> None:
        """Remove objects, selected by kind and name, and the segments that no other object needs.

        Do not call it while a VM has the metadata: a guest does not expect objects to disappear.
        """
        with self.shared() as share:
            table = share.file.read()
            entries = [entry for entry in table.entries if (entry.kind, entry.name) not in obsolete]
            kept = sorted({entry.segment for entry in entries})
            entries = [replace(entry, segment=kept.index(entry.segment)) for entry in entries]
            segments = tuple(table.segments[number] for number in kept)
            share.file.publish(replace(table, segments=segments, entries=tuple(entries)))

    def restore(self, table: Table) -> None:
        """Publish an earlier table again, and unplug from running VMs the segments that were added after it."""
        earlier = {record.uuid for record in table.segments}
        with self.shared() as share:
            added = [record for record in share.file.read().segments if record.uuid not in earlier]
            share.file.publish(table)
            unplug_segments(share, added)

    # --- read ---------------------------------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """The current content."""
        return self._open().read()

    def devices(self) -> list[Device]:
        """Return the files that a VM needs, the metadata file last. Raise NotFound if one does not exist."""
        return devices_of(self._open(), self.path, self._owner.registry_table)

    def exposure(self) -> list[Exposed]:
        """Return, for each segment, the zones and the free space that a VM can reach beyond the metadata."""
        return exposure_of(self.table, self._owner.registry_table)

    def qemu_args(self) -> list[str]:
        """Return options for a QEMU command line.

        The options of up to 12 metadata files can be concatenated, because each uses a bridge of its own; for more, use
        `ivshmem.qemu_args`. Raise as `ivshmem.qemu_args`.
        """
        return qemu_args(self)

    def cmdline(self) -> str:
        """Return `qemu_args`, quoted for a shell (DPDK: rte_ivshmem_metadata_cmdline_generate)."""
        return shlex.join(self.qemu_args())

    def libvirt_xml(self) -> str:
        """Return child elements for a libvirt <domain>. Raise Invalid for a path that XML cannot represent."""
        return libvirt.domain_xml(self.devices(), qemu.place_of(self.uuid))

    def dump(self, file: TextIO) -> None:
        """Write the content as text (DPDK: rte_ivshmem_metadata_dump)."""
        dump_table(self._open(), self.path, file)

    # --- running VMs --------------------------------------------------------------------------------------

    def plug(self, qmp_path: str | os.PathLike[str], timeout: float = 5.0) -> None:
        """Plug the metadata into a running VM, given by its QMP socket: missing segments first, then the metadata file.

        Afterwards, an `add_*` in any process of the prefix plugs a new segment into the VM before it publishes the
        segment. `timeout`: seconds in which the guest must assign an address to each device.

        Raise NoMemory if no bridge has a free slot and a large enough window, Stalled if the guest does not respond,
        InUse if the VM is paused, NotFound if no QEMU listens, Invalid if QEMU rejects a command. The VM is then
        unchanged. Other changes in the prefix wait during the call.
        """
        with self.shared() as share:
            plug_share(share, qmp_path, timeout)

    def unplug(self, qmp_path: str | os.PathLike[str], timeout: float = 5.0, force: bool = False) -> None:
        """Unplug the metadata from a running VM, with the segments that no other metadata there needs.

        The unplug is announced, and the devices are removed after every guest process has detached. Processes in other
        VMs that have the metadata also detach, and attach again. `timeout`: seconds for the guest processes, and again
        for the guest kernel.

        Raise Stalled, with the processes that did not detach, and leave the metadata plugged; with `force` unplug
        anyway. Raise NotFound if the VM does not have the metadata.
        """
        with self.shared() as share:
            unplug_share(share, qmp_path, timeout, force=force)

    @contextmanager
    def shared(self) -> Iterator[HostShare]:
        """Hold the prefix's CHANGE lock in the block, which gets the metadata as a share to plug and unplug."""
        self._open()
        with self._owner.lock():
            yield HostShare(self._owner.directory, self._open(), self.path, self._owner.registry_table)

    # --- close --------------------------------------------------------------------------------------------

    def _open(self) -> TableFile:
        if self._file is None:
            raise Closed(f"metadata {self.name!r} is closed")
        return self._file

    def close(self) -> None:
        """Remove the file; a VM that has it keeps its mapping. May be called twice."""
        if self._file is None:
            return
        remove_files(self._link, Path(self.path))
        with self._owner.lock():
            AttachedVms(self._owner.directory, self.uuid).clear()
        self.abandon()

    def abandon(self) -> None:
        """Release the mapping without removing the file."""
        if self._file is not None:
            self._file.mapping.release()
            self._file = None
            self._owner.disown(self)

    def __enter__(self) -> Metadata:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Metadata {self.name!r}{' closed' if self._file is None else ''}>"


def qemu_args(*metadata: Metadata, plug: str | None = None) -> list[str]:
    """Return QEMU options for one VM with several metadata files: each segment once, on bridges of their own.

    `plug`, a size such as "1G", reserves a bridge window for devices that are plugged into the running VM. Raise
    Invalid for more devices than PCI bus numbers allow (about 7,000), NotFound if a file does not exist.
    """
    devices = merge(device for one in metadata for device in one.devices())
    return qemu.vm_args(devices, plug, qemu.place_of(*(one.uuid for one in metadata)))


# --- tables -----------------------------------------------------------------------------------------------------


def _zone_and_entry(added: object, kinds: tuple[type, ...], label: str) -> tuple[Memzone, Entry]:
    """Return the memzone of an object, and the object's entry."""
    zone = added if isinstance(added, Memzone) else getattr(added, "memzone", None)
    if not isinstance(added, kinds) or not isinstance(zone, Memzone):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise InvalidType(f"{label}: object must be a {expected}, got {type(added).__name__}")
    if zone is added:  # the zone of a ring, too, if it is added as a memzone
        return zone, replace(zone.entry, name=zone.name, kind=Kind.MEMZONE)
    return zone, zone.entry


def _segment_record(zone: Memzone, registry: Table, label: str, prefix: str) -> SegmentRecord:
    """Return the record of a memzone's segment. Raise Invalid if the memzone is not in the prefix."""
    if zone.entry not in registry.entries or registry.segments[zone.entry.segment].uuid != zone.segment.uuid:
        raise Invalid(
            f"{label}: {zone.name!r} must be in a segment of file_prefix {prefix!r}: reserve or create it there; it "
            "is in another one, or was freed"
        )
    return registry.segments[zone.entry.segment]


def _with_entry(table: Table, record: SegmentRecord, entry: Entry, readonly: bool, label: str) -> Table:
    """Return a table with one more entry, and with its segment if that is new. Raise Exists or Invalid."""
    _check_new(table, record, entry, label)
    index = next((n for n, segment in enumerate(table.segments) if segment.uuid == record.uuid), len(table.segments))
    segments = table.segments
    if index == len(segments):
        segments = (*segments, replace(record, path="", readonly=readonly))
    elif segments[index].readonly != readonly:
        raise Invalid(
            f"{label}: segment {record.uuid} must be either read-only or writable in one VM: reserve the read-only "
            "zones in a group of their own"
        )
    return replace(table, segments=segments, entries=(*table.entries, replace(entry, segment=index)))


def _check_new(table: Table, record: SegmentRecord, entry: Entry, label: str) -> None:
    new = f"{entry.kind.name.lower()} {entry.name!r}"
    for other in table.entries:
        if (other.name, other.kind) == (entry.name, entry.kind):
            raise Exists(f"{label} already has {new}")
        overlaps = other.offset < entry.end and entry.offset < other.end
        if overlaps and table.segments[other.segment].uuid == record.uuid:
            raise Invalid(f"{label}: {new} overlaps {other.kind.name.lower()} {other.name!r}, which it already has")
