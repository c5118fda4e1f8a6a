# SPDX-License-Identifier: BSD-3-Clause
"""Metadata: what a VM is told of the memory it is given, made and filled on the host."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from uuid import UUID

from eal.errors import Closed, Exists, Invalid, InvalidType
from eal.lifecycle.eal import Eal
from eal.memory.memzone import Memzone
from eal.mempool.mempool import Mempool
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.metadata.table_file import TableFile
from eal.ring.ring import Ring
from eal.text.sizes import MIB
from ivshmem.hotplug.attached_vms import AttachedVms
from ivshmem.metadata.dump import dump_table
from ivshmem.metadata.exposure import Exposed, ExposedZone, ExposureWarning, complaint, exposure_of
from ivshmem.metadata.names import remove_files
from ivshmem.vmm import libvirt, qemu
from ivshmem.vmm.device import Device, devices_of, merge

if TYPE_CHECKING:
    from ivshmem.hotplug.share import HostShare

CAPACITY = MIB  # bytes of a metadata file: two tables, of some 5,000 objects each


class Metadata:
    """A metadata, of one VM or one purpose (DPDK: rte_ivshmem_metadata_*). Made by `metadata_create`.

    Every `add_*` either takes effect whole or raises and leaves the metadata as it was. It is taken away when it, or
    its Eal, is closed.
    """

    def __init__(self, owner: Eal, path: Path, link: Path, file: TableFile) -> None:
        self.name = file.info.name
        self.uuid = file.info.uuid
        self.path = str(path)
        self._link = link
        self._file: TableFile | None = file
        self._owner = owner
        self.isolated = False  # whether an `add_*` that exposes what is not in it is refused
        self._told: set[tuple[UUID, ExposedZone]] = set()  # of whose exposure somebody was warned
        owner.adopt(self)

    # --- adding -------------------------------------------------------------------------------------------

    def add_memzone(self, zone: Memzone, *, readonly: bool = False) -> None:
        """Adds a zone; `readonly`: the VM gets its segment read-only (rte_ivshmem_metadata_add_memzone).

        Raises Exists for one that is there already, Invalid where it overlaps another one, is not in a segment of this
        Eal, or its segment is shared the other way already; NoMemory where the metadata is full. Warns by an
        ExposureWarning, once for each, of zones that are not in the metadata and the VM can reach with this one; where
        the metadata is `isolated` that is Invalid.
        """
        self._add([self._entry_of(zone, Memzone)], readonly)

    def add_ring(self, ring: Ring, *, readonly: bool = False) -> None:
        """Adds a ring; `readonly`: the VM may look at it, its enqueue and dequeue raise Denied. Raises and warns as
        `add_memzone` (rte_ivshmem_metadata_add_ring).
        """
        self._add([self._entry_of(ring, Ring)], readonly)

    def add_mempool(self, pool: Mempool, *, readonly: bool = False) -> None:
        """Adds a pool; `readonly`: the VM may read its objects, its get and put raise Denied. Raises and warns as
        `add_memzone` (rte_ivshmem_metadata_add_mempool).
        """
        self._add([self._entry_of(pool, Mempool)], readonly)

    def add(self, *objects: Memzone | Ring | Mempool, readonly: bool = False) -> None:
        """Adds zones, rings and pools in one step: all of them or, if it raises, none. Raises and warns as
        `add_memzone`, but not of zones that are among them.
        """
        kinds = (Memzone, Ring, Mempool)
        self._add(
            [self._entry_of(one, next((k for k in kinds if isinstance(one, k)), kinds)) for one in objects], readonly
        )

    def drop(self, gone: Container[tuple[Kind, str]]) -> None:
        """Takes objects out, by kind and name, and the segments that only they needed. Not while a VM has it: a guest
        would not hear of it.
        """
        file = self._open()
        with self._owner.lock():
            table = file.read()
            entries = [entry for entry in table.entries if (entry.kind, entry.name) not in gone]
            kept = sorted({entry.segment for entry in entries})
            entries = [replace(entry, segment=kept.index(entry.segment)) for entry in entries]
            segments = tuple(table.segments[number] for number in kept)
            file.publish(replace(table, segments=segments, entries=tuple(entries)))

    def restore(self, table: Table) -> None:
        """Brings the table of an earlier moment into force again. Running VMs lose the segments that came since."""
        known = {record.uuid for record in table.segments}
        with self.shared() as share:
            added = [record for record in share.file.read().segments if record.uuid not in known]
            share.file.publish(table)
            if added:
                from ivshmem.hotplug import plug

                plug.take_back(share, added)

    def _entry_of(self, given: Any, kind: type | tuple[type, ...]) -> tuple[Memzone, Entry]:
        """The zone of an object, and what is to stand in the metadata of it."""
        zone = given if isinstance(given, Memzone) else getattr(given, "memzone", None)
        if not isinstance(given, kind) or not isinstance(zone, Memzone):
            wanted = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
            raise InvalidType(f"metadata {self.name!r}: a {wanted} is to be added, not {type(given).__name__}")
        if zone is given:
            return zone, replace(zone.entry, name=zone.name, kind=Kind.MEMZONE)
        return zone, zone.entry

    def _add(self, given: list[tuple[Memzone, Entry]], readonly: bool) -> None:
        file = self._open()
        with self._owner.lock():
            table = file.read()
            known = len(table.segments)
            for zone, entry in given:
                record = self._record_of(zone)
                self._check_new(table, record, entry)
                index = _segment_index(table, record, readonly, f"metadata {self.name!r}")
                segments = table.segments
                if index == len(segments):
                    segments = (*segments, replace(record, path="", readonly=readonly))
                entry = replace(entry, segment=index)
                table = replace(table, segments=segments, entries=(*table.entries, entry))
            self._check_exposure(table, [zone for zone, _ in given])
            with self._carrying(table.segments[known:]):
                file.publish(table)

    @contextmanager
    def _carrying(self, added: Sequence[SegmentRecord]) -> Iterator[None]:
        """The running VMs that have this metadata get its new segments before these are published there."""
        if not added or not AttachedVms(self._owner.directory, self.uuid).known():
            yield
            return
        from ivshmem.hotplug import plug

        with self.shared() as share, plug.carry(share, added):
            yield

    def _check_exposure(self, table: Table, added: list[Memzone]) -> None:
        """Before a table comes into force: what else of the prefix a VM can reach by it."""
        registry = self._owner.registry_table
        by_segment = {zone.segment.uuid: zone.entry for zone in added}
        for exposed in exposure_of(table, registry, by_segment):
            fresh = [zone for zone in exposed.zones if (exposed.segment, zone) not in self._told]
            if fresh:
                text = complaint(self.name, by_segment[exposed.segment], exposed, fresh)
                if self.isolated:
                    raise Invalid(text)
                warnings.warn(text, ExposureWarning, stacklevel=4)
                self._told.update((exposed.segment, zone) for zone in fresh)

    def _record_of(self, zone: Memzone) -> SegmentRecord:
        """The record of the segment a zone lies in. Raises Invalid where that is not one of this Eal's own."""
        registry = self._owner.registry_table
        if zone.entry not in registry.entries or registry.segments[zone.entry.segment].uuid != zone.segment.uuid:
            raise Invalid(
                f"metadata {self.name!r}: {zone.name!r} does not lie in a segment of file_prefix "
                f"{self._owner.file_prefix!r}, or was freed: reserve or create it there"
            )
        return registry.segments[zone.entry.segment]

    def _check_new(self, table: Table, record: SegmentRecord, entry: Entry) -> None:
        for other in table.entries:
            known = (other.name, other.kind) == (entry.name, entry.kind)
            overlaps = other.offset < entry.end and entry.offset < other.end
            if not known and not (overlaps and table.segments[other.segment].uuid == record.uuid):
                continue
            what = f"{entry.kind.name.lower()} {entry.name!r}"
            if known:
                raise Exists(f"metadata {self.name!r} has {what} already")
            raise Invalid(
                f"metadata {self.name!r}: {what} overlaps {other.kind.name.lower()} {other.name!r}, which is in it"
            )

    # --- reading ------------------------------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """What is in it now."""
        return self._open().read()

    def devices(self) -> list[Device]:
        """The files that a VM has to be given. Raises NotFound where one is gone."""
        file = self._open()
        return devices_of(file, self.path, self._owner.registry_table)

    def exposure(self) -> list[Exposed]:
        """What a VM reaches in each segment that it gets beyond what is in here: zones, and free space."""
        return exposure_of(self.table, self._owner.registry_table)

    def qemu_args(self) -> list[str]:
        """Options for a QEMU command line. Those of several metadata may follow each other in one, for each sits on a
        bridge of its own; more than 12 have to be planned together, by `ivshmem.qemu_args`. Raises as that does.
        """
        return qemu_args(self)

    def cmdline(self) -> str:
        """The same, quoted for a shell (rte_ivshmem_metadata_cmdline_generate)."""
        return shlex.join(self.qemu_args())

    def libvirt_xml(self) -> str:
        """What goes into a libvirt domain: children of its <domain>. Raises Invalid where XML cannot carry a path."""
        return libvirt.domain_xml(self.devices(), qemu.place_of(self.uuid))

    def dump(self, file: TextIO) -> None:
        """Writes what is in it as text (rte_ivshmem_metadata_dump)."""
        dump_table(self._open(), self.path, file)

    # --- running VMs --------------------------------------------------------------------------------------

    def plug(self, qmp_path: str | os.PathLike[str], timeout: float = 5.0) -> None:
        """Plugs it into the running VM behind a QMP socket: the segments that the VM lacks, then the metadata, if it
        lacks that. From then on `add_*`, in any process of the prefix, plugs a new segment there and then publishes it.

        `timeout`: seconds that the guest has to give each device an address. Raises NoMemory where no bridge has a
        window or a slot for it, saying what is lacking; Stalled, InUse, NotFound or Invalid where the guest does not
        answer, is paused, there is no QEMU, or that refuses. The VM is as it was then. Other changes of the prefix
        wait meanwhile.
        """
        from ivshmem.hotplug import plug

        with self.shared() as share:
            plug.plug(share, qmp_path, timeout)

    def unplug(self, qmp_path: str | os.PathLike[str], timeout: float = 5.0, force: bool = False) -> None:
        """Takes it out of a running VM, with the segments that no other metadata there needs: announced first, removed
        when every guest process has let go (those of other VMs that have it let go too, and take it up again).

        `timeout`: seconds that the processes have, and again the guest's kernel. Raises Stalled, naming who did not let
        go, and leaves it plugged; with `force` it goes all the same. Raises NotFound where the VM does not have it.
        """
        from ivshmem.hotplug import plug

        with self.shared() as share:
            plug.unplug(share, qmp_path, timeout, force=force)

    @contextmanager
    def shared(self) -> Iterator[HostShare]:
        """Alone with it among the prefix's processes, as those see it who plug it in somewhere."""
        from ivshmem.hotplug.share import HostShare

        with self._owner.lock():
            yield HostShare(self._owner.directory, self._open(), self.path, self._owner.registry_table)

    # --- ending -------------------------------------------------------------------------------------------

    def _open(self) -> TableFile:
        if self._file is None:
            raise Closed(f"metadata {self.name!r} is closed")
        return self._file

    def close(self) -> None:
        """Takes it away; a VM that has it keeps what it has mapped. May be called twice."""
        if self._file is None:
            return
        remove_files(self._link, Path(self.path))
        with self._owner.lock():
            AttachedVms(self._owner.directory, self.uuid).drop()
        self.abandon()

    def abandon(self) -> None:
        """Lets go of it and leaves it in place."""
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


def _segment_index(table: Table, record: SegmentRecord, readonly: bool, what: str) -> int:
    """Where a segment stands in the table, or will stand. Raises Invalid where it is shared the other way."""
    for index, there in enumerate(table.segments):
        if there.uuid == record.uuid:
            if there.readonly != readonly:
                raise Invalid(
                    f"{what}: segment {record.uuid} would be both read-only and writable in one VM: reserve what is "
                    "read-only in a group of its own"
                )
            return index
    return len(table.segments)


def qemu_args(*metadata: Metadata, plug: str | None = None) -> list[str]:
    """Options for one VM that gets all these metadata: each segment once, on bridges of their own.

    `plug`, a size such as "1G", reserves room for what is plugged while the VM runs. Raises Invalid for more devices
    than PCI has bus numbers for (some 7,000), NotFound where a file is gone.
    """
    devices = merge(device for one in metadata for device in one.devices())
    return qemu.vm_args(devices, plug, qemu.place_of(*(one.uuid for one in metadata)))
