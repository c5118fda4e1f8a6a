# SPDX-License-Identifier: BSD-3-Clause
"""Mbufs: packets in a mempool, with room before and after the data, chains, reference counts and clones."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn

from eal._native import ffi, lib
from eal.errors import Corrupt, Invalid
from eal.mbuf.format import HEADER_SIZE, header_dtype
from eal.mempool.mempool import Mempool

if TYPE_CHECKING:
    import numpy as np

    from eal.memory.memzone import Memzone

_REST = 0xFFFF_FFFF  # of a packet, as a length


def attach_pool(zone: Memzone, name: str) -> Mempool:
    """The pool in a zone: an MbufPool where it was made as one. Raises Corrupt."""
    return MbufPool(zone, name) if zone.flags & lib.IVS_MEMPOOL_MBUF else Mempool(zone, name)


class MbufPool(Mempool):
    """A pool of `n` mbufs with `data_room` bytes of buffer each (DPDK: what rte_pktmbuf_pool_create gives).

    An mbuf is a uint32 index; a packet is the index of its first segment. Methods have rte_pktmbuf's names and rules:
    where that gives NULL or -1 for want of room or of mbufs, these give None, False or 0. They raise Invalid for an
    index that is not below `n` and for an mbuf that is free, Corrupt where a peer has damaged a header, Denied in a
    read-only share (but for those that only look) and Closed. One packet is for one thread at a time; reference counts,
    alloc and free are for all.

    `get` and `put` are those of a Mempool: they leave headers alone (DPDK: rte_mbuf_raw_alloc, rte_mbuf_raw_free).
    """

    def __init__(self, zone: Memzone, name: str) -> None:
        super().__init__(zone, name)
        if not self._info.flags & lib.IVS_MEMPOOL_MBUF:
            raise Corrupt(f"mempool {name!r}: listed as a pool of mbufs, but it is none")
        self.private_size: int = self._info.private_size
        self.data_room: int = self.elt_size - HEADER_SIZE - self.private_size

    # --- bursts -------------------------------------------------------------------------------------------

    @property
    def mbufs(self) -> np.ndarray[Any, Any]:
        """All headers, shape `(n,)`, without a copy: a structured array with rte_mbuf's field names.

        `buf` is whose buffer holds the data: the mbuf's own index, or another's where it is attached. `next` is
        NO_MBUF (0xffffffff) in a packet's last segment. Hash.rss is `rss`. Read-only where the share is.
        """
        return self._columns(0, header_dtype())

    @property
    def private(self) -> np.ndarray[Any, Any]:
        """All private areas as uint8, shape `(n, private_size)`, without a copy (DPDK: rte_mbuf_to_priv)."""
        return self._columns(HEADER_SIZE, "u1", self.private_size)

    @property
    def data(self) -> np.ndarray[Any, Any]:
        """All buffers as uint8, shape `(n, data_room)`, without a copy (DPDK: buf_addr).

        A segment's data are the bytes from `data_off` to `data_off + data_len` of row `buf`.
        """
        return self._columns(HEADER_SIZE + self.private_size, "u1", self.data_room)

    def _columns(self, at: int, dtype: Any, *shape: int) -> np.ndarray[Any, Any]:
        import numpy as np

        objects = self.memzone.buf[self._info.objects_offset + at :]
        inner = np.empty(shape, dtype).strides
        return np.ndarray((self.n, *shape), dtype, objects, strides=(self.elt_stride, *inner))

    def alloc_bulk(self, out: Any) -> int:
        """Fills a writable uint32 array with fresh mbufs, or takes none: gives their number or 0.

        A fresh mbuf is empty, with 128 bytes of headroom and one reference (DPDK: rte_pktmbuf_alloc_bulk).
        """
        result: int = lib.ivs_call_mbuf_alloc_bulk(self._pool, *self._indices(out, writable=True))
        if result < 0:
            self._fail(result)
        return result

    def free_bulk(self, indices: Any) -> None:
        """Frees a uint32 array of packets, all their segments (DPDK: rte_pktmbuf_free_bulk).

        Raises Invalid, and frees none, for an index out of range; after any other error the others have been freed.
        """
        result = lib.ivs_call_mbuf_free_bulk(self._pool, *self._indices(indices))
        if result < 0:
            self._refuse(result, "of the array")

    # --- one mbuf -----------------------------------------------------------------------------------------

    def alloc(self) -> int | None:
        """One fresh mbuf; None where none is left (DPDK: rte_pktmbuf_alloc)."""
        result: int = lib.ivs_call_mbuf_alloc(self._pool)
        if result < 0:
            if result == -errno.ENOBUFS:
                return None
            self._fail(result)
        return result

    def free(self, index: int) -> None:
        """Drops a packet's references, all its segments'; what has none left is free (DPDK: rte_pktmbuf_free)."""
        self._do(lib.ivs_call_mbuf_free, index)

    def free_seg(self, index: int) -> None:
        """Frees one segment and leaves those that follow it alone (DPDK: rte_pktmbuf_free_seg)."""
        self._do(lib.ivs_mbuf_free_seg, index)

    def reset(self, index: int) -> None:
        """Gives an mbuf the header of a fresh one; its references and what it is attached to stay

        (DPDK: rte_pktmbuf_reset).
        """
        self._do(lib.ivs_mbuf_reset, index)

    def refcnt_read(self, index: int) -> int:
        """How many references an mbuf has; 0 where it is free (DPDK: rte_mbuf_refcnt_read)."""
        return self._look_at(lib.ivs_call_mbuf_refcnt, index)

    def refcnt_update(self, index: int, value: int) -> int:
        """Adds `value` to one mbuf's references and gives the new number (DPDK: rte_mbuf_refcnt_update).

        Raises Invalid where that would be below 1 (`free` drops the last one) or above 65534.
        """
        return self._do(lib.ivs_mbuf_refcnt_update, index, value)

    def pktmbuf_refcnt_update(self, index: int, value: int) -> None:
        """The same for each segment of a packet, or for none (DPDK: rte_pktmbuf_refcnt_update)."""
        self._do(lib.ivs_mbuf_refcnt_update_all, index, value)

    # --- data ---------------------------------------------------------------------------------------------

    def mtod(self, index: int) -> memoryview:
        """The data of one segment, without a copy; read-only where the share is (DPDK: rte_pktmbuf_mtod)."""
        found = self._segment(index)
        return self._bytes(found.place, found.data_len)

    def append(self, index: int, length: int) -> memoryview | None:
        """`length` more bytes at a packet's end, in its last segment: those, to be filled (DPDK: rte_pktmbuf_append).

        None where the tailroom is less.
        """
        return self._room(lib.ivs_call_mbuf_append, index, length)

    def prepend(self, index: int, length: int) -> memoryview | None:
        """`length` more bytes before a packet's first: those, to be filled (DPDK: rte_pktmbuf_prepend).

        None where the headroom is less.
        """
        return self._room(lib.ivs_call_mbuf_prepend, index, length)

    def adj(self, index: int, length: int) -> memoryview | None:
        """Takes `length` bytes off a packet's beginning: what is left of the first segment (DPDK: rte_pktmbuf_adj).

        None, and nothing is taken, where the first segment has less.
        """
        place = self._try(lib.ivs_call_mbuf_adj, index, length, none=[errno.ENOSPC])
        return None if place is None else self.mtod(index)

    def trim(self, index: int, length: int) -> bool:
        """Takes `length` bytes off a packet's end (DPDK: rte_pktmbuf_trim).

        False, and nothing is taken, where the last segment has less.
        """
        return self._try(lib.ivs_call_mbuf_trim, index, length, none=[errno.ENOSPC]) is not None

    def read(self, index: int, offset: int = 0, length: int | None = None) -> bytes | None:
        """A copy of `length` bytes of a packet from `offset` on, or of all that follow (DPDK: rte_pktmbuf_read).

        None where the packet is shorter.
        """
        import numpy as np

        if offset < 0 or (length is not None and length < 0):
            raise Invalid(f"mempool {self.name!r}: {length} bytes from {offset} on: neither may be negative")
        pkt_len = self._segment(index).pkt_len
        if pkt_len > min(self.n, lib.IVS_MBUF_SEGS_MAX) * self.data_room:
            self._refuse(-errno.EBADMSG, index)
        length = max(pkt_len - offset, 0) if length is None else length
        if offset + length > pkt_len:
            return None
        copy = np.empty(length, np.uint8)
        result = self._call(lib.ivs_mbuf_read, self._reader, index, offset, length, ffi.from_buffer(copy))
        if result == -errno.ENOSPC:  # shorter by now: a peer has changed it
            return None
        if result < 0:
            self._refuse(result, index)
        return copy.tobytes()

    def headroom(self, index: int) -> int:
        """Bytes before a segment's data (DPDK: rte_pktmbuf_headroom)."""
        found: int = self._segment(index).data_off
        return found

    def tailroom(self, index: int) -> int:
        """Bytes behind a segment's data (DPDK: rte_pktmbuf_tailroom)."""
        found: int = self._segment(index).tailroom
        return found

    # --- chains and clones --------------------------------------------------------------------------------

    def segments(self, index: int) -> np.ndarray[Any, Any]:
        """The indices of a packet's segments, as a uint32 array of its own."""
        import numpy as np

        found = np.empty(8, np.uint32)
        while True:
            count = self._look_at(lib.ivs_call_mbuf_segments, index, *self._indices(found))
            if count <= len(found):
                return found[:count]
            found = np.empty(count, np.uint32)

    def lastseg(self, index: int) -> int:
        """A packet's last segment (DPDK: rte_pktmbuf_lastseg)."""
        return int(self.segments(index)[-1])

    def is_contiguous(self, index: int) -> bool:
        """Whether a packet has one segment (DPDK: rte_pktmbuf_is_contiguous)."""
        return bool(self._segment(index).nb_segs == 1)

    def is_direct(self, index: int) -> bool:
        """Whether an mbuf uses its own buffer (DPDK: RTE_MBUF_DIRECT)."""
        return bool(self._segment(index).buf == index)

    def chain(self, head: int, tail: int) -> None:
        """Puts packet `tail` at the end of packet `head`, whose it is from now on (DPDK: rte_pktmbuf_chain).

        Raises Invalid where they share a segment, or have more than 65535 together.
        """
        self._do(
            lib.ivs_mbuf_chain, head, tail, why=f"cannot be followed by {tail}: they share a segment, or {tail} is none"
        )

    def clone(self, index: int) -> int | None:
        """A packet of new mbufs that share this one's data: its index (DPDK: rte_pktmbuf_clone).

        None where too few mbufs are left.
        """
        return self._try(lib.ivs_mbuf_clone, index, none=[errno.ENOBUFS])

    def copy(self, index: int, offset: int = 0, length: int | None = None) -> int | None:
        """A packet of new mbufs with a copy of `length` bytes, or as many as there are, from `offset` on: its index

        (DPDK: rte_pktmbuf_copy). None where too few mbufs are left or the packet does not reach beyond `offset`.
        """
        wanted = _REST if length is None else length
        return self._try(lib.ivs_mbuf_copy, index, offset, wanted, none=[errno.ENOBUFS, errno.ENOSPC])

    def attach(self, index: int, to: int) -> None:
        """Has mbuf `index` share the data of segment `to` (DPDK: rte_pktmbuf_attach).

        Raises Invalid where it is attached already, has more than one segment or reference, or is `to` itself.
        """
        why = f"cannot be attached to {to}: it is attached, in a chain, shared or the same, or {to} is none"
        self._do(lib.ivs_mbuf_attach, index, to, why=why)

    def detach(self, index: int) -> None:
        """Gives an attached mbuf its own buffer back, empty (DPDK: rte_pktmbuf_detach). Its pkt_len shrinks with that.

        Raises Invalid for one that is not attached.
        """
        self._do(lib.ivs_mbuf_detach, index, why="is not attached to another")

    def linearize(self, index: int) -> bool:
        """Moves a packet's data into its first segment and frees the others (DPDK: rte_pktmbuf_linearize).

        False, and nothing has changed, where that one's tailroom is too small.
        """
        return self._try(lib.ivs_mbuf_linearize, index, none=[errno.ENOSPC]) is not None

    def sanity_check(self, index: int, is_header: bool = True) -> None:
        """Looks whether a packet, or without `is_header` one segment, is sound (DPDK: rte_mbuf_check).

        Raises Corrupt with the reason.
        """
        reason = ffi.new("const char **")
        result = self._call(lib.ivs_mbuf_check, self._reader, index, is_header, reason)
        if result == -errno.EBADMSG:
            raise Corrupt(f"mempool {self.name!r}: mbuf {index}: {ffi.string(reason[0]).decode()}")
        if result < 0:
            self._refuse(result, index)

    # --- calls of the C core ------------------------------------------------------------------------------

    @property
    def _reader(self) -> Any:
        """A C handle for those who only look, which they may in a read-only share."""
        return self._look() if self.memzone.readonly else self._pool

    def _call(self, function: Any, handle: Any, index: int, *arguments: Any) -> int:
        try:
            result: int = function(handle, index, *arguments)
        except OverflowError as error:
            raise Invalid(f"mempool {self.name!r}: mbuf {index}: a number is out of range: {error}") from error
        return result

    def _do(self, function: Any, index: int, *arguments: Any, why: str = "") -> int:
        result = self._call(function, self._pool, index, *arguments)
        if result < 0:
            self._refuse(result, index, why)
        return result

    def _try(self, function: Any, index: int, *arguments: Any, none: list[int]) -> int | None:
        """As _do, but None for some errnos."""
        result = self._call(function, self._pool, index, *arguments)
        if result < 0:
            if -result in none:
                return None
            self._refuse(result, index)
        return result

    def _look_at(self, function: Any, index: int, *arguments: Any) -> int:
        """As _do, for what changes nothing."""
        result = self._call(function, self._reader, index, *arguments)
        if result < 0:
            self._refuse(result, index)
        return result

    def _segment(self, index: int) -> Any:
        found = ffi.new("struct ivs_call_seg *")
        self._look_at(lib.ivs_call_mbuf_segment, index, found)
        return found

    def _room(self, function: Any, index: int, length: int) -> memoryview | None:
        place = self._try(function, index, length, none=[errno.ENOSPC])
        return None if place is None else self._bytes(place, length)

    def _bytes(self, place: int, length: int) -> memoryview:
        at = self._info.objects_offset + place
        return self.memzone.buf[at : at + length]

    def _refuse(self, result: int, index: int | str, why: str = "") -> NoReturn:
        which = f"mempool {self.name!r}: mbuf {index}"
        result = self.memzone.map_errno(result)
        if result == -errno.EINVAL and why and int(index) < self.n:
            raise Invalid(f"{which} {why}")
        if result == -errno.EINVAL:
            raise Invalid(f"{which}: an index is not below n ({self.n}), or more are freed than are out")
        if result == -errno.EALREADY:
            raise Invalid(f"{which} is free: it was freed already, or taken by get() instead of alloc()")
        if result == -errno.EBADMSG:
            raise Corrupt(f"{which}: a header in its packet is damaged: sanity_check() tells which number")
        if result == -errno.ERANGE:
            raise Invalid(f"{which}: references go from 1 to 65534, segments to 65535")
        self._fail(result, str(index))

    def __repr__(self) -> str:
        return f"<MbufPool {self.name!r} {self.n} mbufs of {self.data_room} bytes>"
