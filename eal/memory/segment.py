# SPDX-License-Identifier: BSD-3-Clause
"""Segments: one shared file each, a BAR in a guest, with the header that tells what it is."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from eal._native import ffi, lib
from eal.errors import Corrupt, Denied, NotFound
from eal.linux import process
from eal.linux.mapping import Mapping
from eal.memory.hugepages import Backend
from eal.memory.segment_file import Ownership, Progress, create
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import SegmentRecord
from eal.native_handle import fault_text
from eal.text.names import pack_name, unpack_name

log = logging.getLogger(__name__)

HEADER_SIZE: int = lib.IVS_HEADER_SIZE
PARTICIPANTS: int = lib.IVS_PARTICIPANTS


def share_word(metadata: UUID) -> int:
    """The word by which guards name a metadata in a segment's table of participants."""
    word: int = lib.ivs_share_word(metadata.bytes)
    return word


class Slot:
    """The calling thread's place in a segment's table of participants; given up when nothing holds it any more."""

    def __init__(self, mapping: Mapping, base: Any, index: int, owner: int) -> None:
        self.index = index
        self.owner = owner
        self._base = base  # the segment's pages stay until the slot is given up
        self._pages = mapping.pages
        self._forks = process.forks()

    def __del__(self) -> None:
        if self._forks == process.forks() and self._pages.mapped:
            lib.ivs_participant_release(self._base, self.index, self.owner)


@dataclass(frozen=True, slots=True)
class Participant:
    """Who stands in a slot: words for thread and process (eal.linux.process), and whether it is known to be dead.

    A guard, who answers for a process when a share is unplugged, has that share's word (`share_word`), a heartbeat that
    counts up, and the last announcement it let go for; these are 0 for others.
    """

    slot: int
    owner: int
    process: int
    dead: bool
    heartbeat: int = 0
    ack: int = 0
    share: int = 0


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
                held = self._local.slot = self._claim()
                if held is not None:
                    self._slots.add(held)
        return held

    def _claim(self) -> Slot | None:
        owner = process.owner()
        mine = process.identity()
        base = self.mapping.pointer()
        for found in self.participants():  # the dead first: with the slot comes what they had cached
            if found.dead and lib.ivs_participant_adopt(base, found.slot, found.owner, owner, mine) == 0:
                return Slot(self.mapping, base, found.slot, owner)
        index: int = lib.ivs_participant_claim(base, owner, mine)
        return Slot(self.mapping, base, index, owner) if index >= 0 else None

    def leave(self) -> None:
        """Gives up the calling thread's slot, as far as no pool still holds it."""
        self._local.__dict__.pop("slot", None)

    def participants(self) -> list[Participant]:
        """Who has a slot now."""
        base = self.mapping.pointer()
        seen = ffi.new("struct ivs_participant_info *")
        found = []
        for slot in range(PARTICIPANTS):
            lib.ivs_participant_read(base, slot, seen)
            if seen.owner:
                dead = process.is_dead(seen.owner, seen.process)
                found.append(Participant(slot, seen.owner, seen.process, dead, seen.heartbeat, seen.ack, seen.share))
        return found

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
