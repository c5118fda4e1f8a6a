# SPDX-License-Identifier: BSD-3-Clause
"""Segments: one shared file each, a BAR in a guest, with the header that tells what it is."""

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
    """A mapped segment.

    `path` is the file, or in a guest the device's resource file; `address` is where this process maps it,
    `host_address` where its creator did. `socket_id` is the NUMA node here (-1: any), `host_socket_id` the
    creator's. (DPDK: struct rte_memseg_list.)
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
        self._claiming = threading.Lock()

    @property
    def address(self) -> int:
        return self.mapping.address

    @property
    def relocated(self) -> bool:
        """Whether the host's address was taken here, so that raw pointers in the segment do not hold."""
        return self.address != self.host_address

    @property
    def retired(self) -> bool:
        """Whether the host has given this segment up for good."""
        return bool(lib.ivs_segment_retired(self.mapping.pointer()))

    def retire(self) -> None:
        lib.ivs_segment_retire(self.mapping.pointer())

    def view(self, offset: int, length: int) -> memoryview:
        return self.mapping.view(offset, length)

    def zero(self, offset: int, length: int) -> None:
        lib.ivs_zero(self.mapping.pointer(), offset, length)

    def slot(self) -> Slot | None:
        """The calling thread's slot; None where all are taken by the living, or the segment is read-only."""
        held: Slot | None = getattr(self._local, "slot", None)
        if held is None and not self.readonly:
            with self._claiming:
                held = self._local.slot = claim_slot(self.mapping)
                if held is not None:
                    self._slots.add(held)
        return held

    def leave(self) -> None:
        """Gives up the calling thread's slot, as far as no pool still holds it."""
        self._local.__dict__.pop("slot", None)

    def participants(self) -> list[Participant]:
        """Return the participants that have a slot now."""
        return read_participants(self.mapping.pointer())

    def detach(self) -> list[tuple[int, int]]:
        """Lets go of the device: views read zeros from now on, and nothing that this process does gets there any more.

        Gives the slots that its threads still hold there, as (index, owner).
        """
        with self._claiming:
            held = [(slot.index, slot.owner) for slot in self._slots]
            self.mapping.detach()
        return held

    def close(self) -> None:
        """Gives up this process's hold; pages stay as long as a view of them lives. May be called twice."""
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
    """Makes a segment file, takes its pages and writes its header. Raises NoMemory for too few pages."""
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


def read_header(mapping: Mapping, what: str, length: int = 0) -> SegmentRecord:
    """What a segment's header says of it. Raises Corrupt with the reason. `mapping` may be of its first page alone;
    `length` then says how many bytes there are to be mapped.
    """
    info = ffi.new("struct ivs_segment_info *")
    fault = lib.ivs_segment_check(mapping.pointer(), length or mapping.length, info)
    if fault:
        raise Corrupt(f"{what}: segment with {fault_text(fault)}")
    try:
        group = unpack_name(bytes(ffi.buffer(info.group)))
    except UnicodeDecodeError as error:
        raise Corrupt(f"{what}: segment whose group name is not UTF-8") from error
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
    """Maps a segment of the own prefix by the path in its record. Raises NotFound, Denied or Corrupt."""
    try:
        fd = os.open(record.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise NotFound(f"segment file {record.path} is gone: was it removed by hand?") from error
    except OSError as error:
        raise Denied(f"cannot open segment file {record.path}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size < record.size:
            raise Corrupt(f"segment file {record.path} has {size} bytes, not {record.size}: it was truncated")
        mapping = Mapping(fd, record.size, hint=record.host_address, what=record.path)
    finally:
        os.close(fd)
    try:
        found = read_header(mapping, record.path).uuid
    except Corrupt as error:
        # A VM may write there. The registry, which no VM gets, is the authority on what the file is.
        log.warning("%s: a peer has damaged the header; going by the registry", error)
        found = record.uuid
    if found != record.uuid:
        raise Corrupt(f"segment file {record.path} holds segment {found}, not {record.uuid}")
    return Segment(record, mapping, record.path, socket_id=record.socket_id)
