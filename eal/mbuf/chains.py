# SPDX-License-Identifier: BSD-3-Clause
"""Packet chains: segments, clones, copies, attached mbufs, and validation."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from eal._native import ffi, lib
from eal.errors import Corrupt
from eal.mbuf.calls import MbufCalls

if TYPE_CHECKING:
    import numpy as np

_ALL = 0xFFFF_FFFF  # length of a copy: to the end of the packet


class PacketChains(MbufCalls):
    """The methods of MbufPool for the segments of a packet, and for packets that share data."""

    def segments(self, index: int) -> np.ndarray[Any, Any]:
        """Return the indices of a packet's segments as a new uint32 array."""
        import numpy as np

        indices = np.empty(8, np.uint32)
        while True:
            count = self._read(lib.ivs_call_mbuf_segments, index, *self._indices(indices))
            if count <= len(indices):
                return indices[:count]
            indices = np.empty(count, np.uint32)

    def lastseg(self, index: int) -> int:
        """Return the index of a packet's last segment (DPDK: rte_pktmbuf_lastseg)."""
        return int(self.segments(index)[-1])

    def is_contiguous(self, index: int) -> bool:
        """Return whether a packet has a single segment (DPDK: rte_pktmbuf_is_contiguous)."""
        return bool(self._segment(index).nb_segs == 1)

    def is_direct(self, index: int) -> bool:
        """Return whether an mbuf uses its own buffer (DPDK: RTE_MBUF_DIRECT)."""
        return bool(self._segment(index).buf == index)

    def chain(self, head: int, tail: int) -> None:
        """Append packet `tail` to packet `head`; `tail` is no packet afterwards (DPDK: rte_pktmbuf_chain).

        Raise Invalid if the packets have a segment in common, or more than 65535 segments together.
        """
        result = self._call(lib.ivs_mbuf_chain, self._pool, head, tail)
        if result < 0:
            self._raise_mbuf_error(result, head if tail < self.n else tail, lib.IVS_FAULT_SHARED_SEGMENT)

    def clone(self, index: int) -> int | None:
        """Allocate a packet that shares the data of this packet; return its index (DPDK: rte_pktmbuf_clone).

        Return None if too few mbufs are free.
        """
        return self._write_or_none(lib.ivs_mbuf_clone, index, none=(errno.ENOBUFS,))

    def copy(self, index: int, offset: int = 0, length: int | None = None) -> int | None:
        """Allocate a packet with a copy of at most `length` bytes from byte `offset`; return its index.

        Return None if too few mbufs are free, or if the packet has no byte at `offset`. DPDK: rte_pktmbuf_copy.
        """
        limit = _ALL if length is None else length
        return self._write_or_none(lib.ivs_mbuf_copy, index, offset, limit, none=(errno.ENOBUFS, errno.ENOSPC))

    def attach(self, index: int, to: int) -> None:
        """Attach mbuf `index` to the data of segment `to` (DPDK: rte_pktmbuf_attach).

        Raise Invalid if `index` is attached, has more than one segment or reference, or if `to` uses its buffer.
        """
        result = self._call(lib.ivs_mbuf_attach, self._pool, index, to)
        if result < 0:
            fault = lib.ivs_mbuf_attach_fault(self._pool, index, to)
            self._raise_mbuf_error(result, index if to < self.n else to, fault)

    def detach(self, index: int) -> None:
        """Detach an mbuf: it uses its own buffer, without data, and its pkt_len shrinks (DPDK: rte_pktmbuf_detach).

        Raise Invalid if the mbuf is not attached.
        """
        result = self._call(lib.ivs_mbuf_detach, self._pool, index)
        if result < 0:
            self._raise_mbuf_error(result, index, lib.IVS_FAULT_DIRECT)

    def linearize(self, index: int) -> bool:
        """Move the data of a packet into its first segment and free the others (DPDK: rte_pktmbuf_linearize).

        Return False and change nothing if the tailroom of the first segment is too small.
        """
        return self._write_or_none(lib.ivs_mbuf_linearize, index, none=(errno.ENOSPC,)) is not None

    def sanity_check(self, index: int, is_header: bool = True) -> None:
        """Validate a packet, or one segment if `is_header` is False (DPDK: rte_mbuf_check).

        Raise Corrupt with the damaged field.
        """
        reason = ffi.new("const char **")
        result = self._call(lib.ivs_mbuf_check, self._reader, index, is_header, reason)
        if result == -errno.EBADMSG:
            raise Corrupt(f"mempool {self.name!r}: mbuf {index}: {ffi.string(reason[0]).decode()}")
        if result < 0:
            self._raise_mbuf_error(result, index)
