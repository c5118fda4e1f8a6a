# SPDX-License-Identifier: BSD-3-Clause
"""Segments: shared files that contain objects, each the BAR of a device in a guest (DPDK: rte_memseg_list)."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from pathlib import Path
from uuid import UUID

from eal._native import ffi, lib
from eal.errors import Corrupt, Denied, NotFound
from eal.linux.mapping import Mapping
from eal.memory.hugepages import Backend
from eal.memory.participant import Participant, Slot, claim_slot, read_participants
from eal.memory.segment_file import Ownership, Progress, create
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import SegmentRecord
from eal.native_handle import fault_text
from eal.text.names import pack_name, unpack_name

log = logging.getLogger(__name__)

HEADER_SIZE: int = lib.IVS_HEADER_SIZE


class Segment:
    """A mapped segment (DPDK: struct rte_memseg_list).

    `path` is its file, in a guest the device's resource file. `address` is the address in this process, `host_address`
    the address in the process that created it. `socket_id` is the NUMA node in this machine (-1: any), `host_socket_id`
    the node that the creator selected.
    """

    def __init__(self, record: SegmentRecord, mapping: Mapping, path: str, *, socket_id: int) -> None:
        self.record = record
        self.mapping = mapping
        self.path = path
        self.uuid = record.uuid
        self.size = record.size
        self.page_size = record.page_size
        self.group = record.group
        self.host_address = record.host_address
        self.host_socket_id = record.socket_id
        self.socket_id = socket_id
        self.readonly = not mapping.writable
        self.epoch = record.epoch
        self._local = threading.local()
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()  # of all threads
        self._claim_lock = threading.Lock()

    @property
    def address(self) -> int:
        return self.mapping.address

    @property
    def relocated(self) -> bool:
        """Whether the address differs from the host's, so that raw pointers in the segment are invalid here."""
        return self.address != self.host_address

    @property
    def retired(self) -> bool:
        """Whether the host no longer serves this segment."""
        return bool(lib.ivs_segment_retired(self.mapping.pointer()))

    def retire(self) -> None:
        """Set the retired flag in the header: the host no longer serves this segment."""
        lib.ivs_segment_retire(self.mapping.pointer())

    def view(self, offset: int, length: int) -> memoryview:
        """Return the bytes of a range. Raise as `Mapping.pointer`."""
        return self.mapping.view(offset, length)

    def zero(self, offset: int, length: int) -> None:
        """Fill a range with zeros."""
        lib.ivs_zero(self.mapping.pointer(), offset, length)

    def slot(self) -> Slot | None:
        """Return the calling thread's participant slot; claim one on first use.

        None if live participants use all slots, or if the segment is read-only.
        """
        held: Slot | None = getattr(self._local, "slot", None)
        if held is None and not self.readonly:
            with self._claim_lock:
                held = self._local.slot = claim_slot(self.mapping)
                if held is not None:
                    self._slots.add(held)
        return held

    def leave(self) -> None:
        """Drop the calling thread's reference to its slot; a mempool cache may still hold another one."""
        self._local.__dict__.pop("slot", None)

    def participants(self) -> list[Participant]:
        """Return the participants that have a slot now."""
        return read_participants(self.mapping.pointer())

    def detach(self) -> list[tuple[int, int]]:
        """Replace the device's pages by private zero pages, for all views and threads of this process.

        Return the slots that threads of this process still have there, as (index, owner word).
        """
        with self._claim_lock:
            held = [(slot.index, slot.owner) for slot in self._slots]
            self.mapping.detach()
        return held

    def close(self) -> None:
        """Release the mapping; the pages remain mapped while a view exists. May be called twice."""
        self.leave()
        self.mapping.release()

    def __repr__(self) -> str:
        return f"<Segment {self.uuid} group {self.group!r} {self.size} bytes at {self.address:#x}>"


def create_segment(
    backend: Backend,
    path: Path,
    uuid: UUID,
    size: int,
    *,
    group: str,
    socket_id: int,
    epoch: int,
    hint: int,
    ownership: Ownership,
    progress: Progress | None = None,
) -> Segment:
    """Create a segment file of `size` bytes, allocate its pages, and write its header.

    `hint` is the wanted address. Raise NoMemory for too few pages, and the other errors of `segment_file.create`.
    """
    bind = None if socket_id == SOCKET_ID_ANY else socket_id
    mapping = create(backend, path, size, hint=hint, ownership=ownership, bind=bind, progress=progress)
    record = SegmentRecord(
        uuid, size, backend.page_size, mapping.address, socket_id, group, epoch, path=os.fspath(path)
    )
    info = ffi.new("struct ivs_segment_info *")
    info.uuid = uuid.bytes
    info.size = size
    info.page_size = backend.page_size
    info.host_address = mapping.address
    info.epoch = epoch
    info.socket_id = socket_id
    info.group = pack_name(group)
    lib.ivs_segment_format(mapping.pointer(), info)
    return Segment(record, mapping, record.path, socket_id=socket_id)


def read_header(mapping: Mapping, label: str, length: int = 0) -> SegmentRecord:
    """Return the record in a segment's header; `label` names the segment in messages. Raise Corrupt with the reason.

    `mapping` may contain the first page only; `length` is then the size in bytes of the whole file or BAR.
    """
    info = ffi.new("struct ivs_segment_info *")
    fault = lib.ivs_segment_check(mapping.pointer(), length or mapping.length, info)
    if fault:
        raise Corrupt(f"{label}: segment with {fault_text(fault)}")
    try:
        group = unpack_name(bytes(ffi.buffer(info.group)))
    except UnicodeDecodeError as error:
        raise Corrupt(f"{label}: segment with a group name that is not UTF-8") from error
    return SegmentRecord(
        UUID(bytes=bytes(ffi.buffer(info.uuid))),
        info.size,
        info.page_size,
        info.host_address,
        info.socket_id,
        group,
        info.epoch,
    )


def open_segment(record: SegmentRecord) -> Segment:
    """Map a segment of this prefix by the path in its record. Raise NotFound, Denied or Corrupt."""
    try:
        fd = os.open(record.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise NotFound(f"segment file {record.path} does not exist: was it removed by hand?") from error
    except OSError as error:
        raise Denied(f"cannot open segment file {record.path}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size < record.size:
            raise Corrupt(f"segment file {record.path} must have {record.size} bytes, got {size}: it was truncated")
        mapping = Mapping(fd, record.size, hint=record.host_address, label=record.path)
    finally:
        os.close(fd)
    try:
        found = read_header(mapping, record.path).uuid
    except Corrupt as error:
        # A VM may write to the header. The registry is the authority, because no VM has access to it.
        log.warning("%s: a peer has damaged the header; using the record in the registry", error)
        found = record.uuid
    if found != record.uuid:
        raise Corrupt(f"segment file {record.path} must contain segment {record.uuid}, got {found}")
    return Segment(record, mapping, record.path, socket_id=record.socket_id)
