"""Probing: what the ivshmem devices of this machine carry, validated before anything of it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

from eal._native import ffi, lib
from eal.bar import Bar
from eal.errors import Corrupt, EalError, Exists, NotFound
from eal.mapping import Mapping
from eal.pci import PciDevice
from eal.segment import HEADER_SIZE, Segment, read_header
from eal.table import METADATA_MAGIC, Entry, Kind, SegmentRecord, Table, TableFile

log = logging.getLogger(__name__)


@dataclass
class Share:
    """A metadata that was found and accepted: its name, the device it is on, and the segments it needs, mapped."""

    name: str
    address: str
    uuid: UUID
    file: TableFile
    table: Table
    segments: list[Segment]

    def __post_init__(self) -> None:
        self.index = by_name(self.table)

    def find(self, kind: Kind, name: str) -> Entry | None:
        return self.index.get((kind, name))

    def segment_of(self, entry: Entry) -> Segment:
        return self.segments[entry.segment]


@dataclass(frozen=True)
class Rejection:
    """A device whose content was refused: its PCI address, the metadata's name where readable, and the reason."""

    address: str
    name: str
    reason: str


@dataclass
class Findings:
    """What a probe came to. `foreign` are the addresses of devices that carry nothing of ours."""

    shares: list[Share] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def reject(self, address: str, error: EalError, name: str = "") -> None:
        log.warning("ivshmem device %s is not used: %s", address, error)
        self.rejections.append(Rejection(address, name, str(error)))


@dataclass
class _Carrier:
    """A device that carries a segment."""

    device: PciDevice
    bar: Bar
    record: SegmentRecord


class Prober:
    """Sorts devices by what is in them, then takes each metadata whose segments are all there."""

    def __init__(
        self,
        in_use: Callable[[Iterable[Entry]], tuple[Entry, str] | None],
        map_segment: Callable[..., Mapping] = Bar.map,
    ) -> None:
        """`in_use` gives the first object whose kind and name somebody has already, and who has it, or None.
        `map_segment` maps the segments that are used, with the arguments of Bar.map.
        """
        self._in_use = in_use
        self._map_segment = map_segment
        self.findings = Findings()
        self._metadata: list[tuple[PciDevice, TableFile]] = []
        self._carriers: dict[UUID, list[_Carrier]] = {}
        self._segments: dict[UUID, Segment] = {}
        self._writable: set[UUID] = set()  # segments that any metadata of this machine gives to be written to

    def probe(self, devices: Iterable[PciDevice]) -> Findings:
        """Looks at every device. A bad one rejects itself and never takes another one down with it."""
        try:
            for device in devices:
                try:
                    self._classify(device)
                except EalError as error:
                    self.findings.reject(device.address, error)
            wanted = self._read_tables()
            self._writable = {s.uuid for _, _, table in wanted for s in table.segments if not s.readonly}
            for device, file, table in wanted:
                try:
                    self._accept(device, file, table)
                except EalError as error:
                    self.findings.reject(device.address, error, file.info.name)
        finally:
            for carrier in (c for carriers in self._carriers.values() for c in carriers):
                carrier.bar.close()
        return self.findings

    # --- what a device is ----------------------------------------------------------------------------------

    def _classify(self, device: PciDevice) -> None:
        bar = Bar(device)
        keep = False
        try:
            if bar.size >= HEADER_SIZE:
                keep = self._look(device, bar)
            else:
                bar.restore()
                self.findings.foreign.append(device.address)
        except BaseException:
            bar.close()
            raise
        if not keep:
            bar.close()

    def _look(self, device: PciDevice, bar: Bar) -> bool:
        """Takes note of a device; True if its BAR is still needed."""
        head = bar.map(HEADER_SIZE, writable=False)
        magic = ffi.cast("uint64_t *", head.pointer())[0]
        if magic == METADATA_MAGIC:
            whole = bar.map(bar.size, writable=False)
            what = f"metadata on device {device.address}"
            try:
                self._metadata.append((device, TableFile.open(whole, METADATA_MAGIC, what)))
            except Corrupt as error:
                self.findings.reject(device.address, error, TableFile.readable_name(whole, METADATA_MAGIC))
            return False
        if magic == lib.IVS_SEGMENT_MAGIC:
            record = read_header(head, f"device {device.address}", bar.size)
            self._carriers.setdefault(record.uuid, []).append(_Carrier(device, bar, record))
            return True
        bar.restore()
        self.findings.foreign.append(device.address)
        log.debug("ivshmem device %s carries nothing of ours: left alone", device.address)
        return False

    # --- what a metadata needs -----------------------------------------------------------------------------

    def _read_tables(self) -> list[tuple[PciDevice, TableFile, Table]]:
        tables = []
        for device, file in self._metadata:
            try:
                tables.append((device, file, file.read()))
            except EalError as error:
                self.findings.reject(device.address, error, file.info.name)
        return tables

    def _accept(self, device: PciDevice, file: TableFile, table: Table) -> None:
        name = file.info.name
        self._check_conflicts(file, table)
        for record in table.segments:
            if record.uuid not in self._carriers:
                raise NotFound(
                    f"metadata {name!r} needs segment {record.uuid} of {record.size} bytes, which no device carries: "
                    "give the VM all devices of the metadata's command line"
                )
        segments = [self._map(record, name) for record in table.segments]
        self.findings.shares.append(Share(name, device.address, file.info.uuid, file, table, segments))

    def _check_conflicts(self, file: TableFile, table: Table) -> None:
        name = file.info.name
        mine = by_name(table)
        if len(mine) != len(table.entries):
            raise Corrupt(f"metadata {name!r} names one object twice")
        for share in self.findings.shares:
            if share.uuid == file.info.uuid:
                raise Exists(f"metadata {name!r} is on device {share.address} too: that one is used")
            for key in sorted(mine.keys() & share.index.keys()):
                if place_of(table, mine[key]) != place_of(share.table, share.index[key]):
                    raise Exists(
                        f"metadata {name!r} and metadata {share.name!r} (device {share.address}) both have a "
                        f"{key[0].name.lower()} {key[1]!r}, and they are different objects: rename one"
                    )
        if taken := self._in_use(table.entries):
            entry, holder = taken
            raise Exists(
                f"metadata {name!r} has a {entry.kind.name.lower()} {entry.name!r}, and so has {holder}: rename one"
            )

    def _map(self, record: SegmentRecord, name: str) -> Segment:
        """The segment of a record, mapped once for each uuid: writable if any metadata of this machine says so."""
        if record.uuid in self._segments:
            return self._segments[record.uuid]
        writable = record.uuid in self._writable
        carrier = self._carrier(record, writable)
        if (carrier.record.size, carrier.record.group) != (record.size, record.group):
            raise Corrupt(
                f"{carrier.device.address}: segment {record.uuid} has {carrier.record.size} bytes and group "
                f"{carrier.record.group!r}, metadata {name!r} says {record.size} and {record.group!r}"
            )
        hint = carrier.record.host_address
        mapping = self._map_segment(carrier.bar, record.size, writable=writable, hint=hint)
        segment = Segment(carrier.record, mapping, str(carrier.device.resource), socket_id=carrier.device.numa_node)
        self._segments[record.uuid] = segment
        return segment

    def _carrier(self, record: SegmentRecord, writable: bool) -> _Carrier:
        """The device to map a segment from: where it comes twice and is written to, one that takes writes."""
        carriers = self._carriers[record.uuid]
        if writable and len(carriers) > 1:
            return next((c for c in carriers if _takes_writes(c.bar)), carriers[0])
        return carriers[0]


def _takes_writes(bar: Bar) -> bool:
    """Whether writes reach the segment: QEMU drops them without a word where the device is read-only."""
    page: Mapping = bar.map(HEADER_SIZE, writable=True)
    return bool(lib.ivs_segment_takes_writes(page.pointer()))


def by_name(table: Table) -> dict[tuple[Kind, str], Entry]:
    """The objects of a table by kind and name."""
    return {(entry.kind, entry.name): entry for entry in table.entries}


def place_of(table: Table, entry: Entry) -> tuple[UUID, int, int]:
    """What makes an object of two tables the same object: segment, offset and length."""
    return table.segments[entry.segment].uuid, entry.offset, entry.length
