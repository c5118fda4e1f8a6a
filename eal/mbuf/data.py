# SPDX-License-Identifier: BSD-3-Clause
"""Packet data: headroom, tailroom, and access to the bytes of a packet."""

from __future__ import annotations

import errno
from typing import Any

from eal._native import ffi, lib
from eal.errors import Invalid
from eal.mbuf.calls import MbufCalls


class PacketData(MbufCalls):
    """The methods of MbufPool for the data of a packet."""

    def mtod(self, index: int) -> memoryview:
        """Return the data of one segment, without a copy; read-only if the share is read-only (rte_pktmbuf_mtod)."""
        segment = self._segment(index)
        return self._bytes(segment.place, segment.data_len)

    def append(self, index: int, length: int) -> memoryview | None:
        """Append `length` bytes to the last segment and return a view of them (DPDK: rte_pktmbuf_append).

        Return None if the tailroom is too small.
        """
        return self._extend(lib.ivs_call_mbuf_append, index, length)

    def prepend(self, index: int, length: int) -> memoryview | None:
        """Prepend `length` bytes to the first segment and return a view of them (DPDK: rte_pktmbuf_prepend).

        Return None if the headroom is too small.
        """
        return self._extend(lib.ivs_call_mbuf_prepend, index, length)

    def _extend(self, function: Any, index: int, length: int) -> memoryview | None:
        place = self._write_or_none(function, index, length, none=(errno.ENOSPC,))
        return None if place is None else self._bytes(place, length)

    def adj(self, index: int, length: int) -> memoryview | None:
        """Remove `length` bytes at the start of a packet; return the rest of the first segment (DPDK: rte_pktmbuf_adj).

        Return None and remove nothing if the first segment has less data.
        """
        place = self._write_or_none(lib.ivs_call_mbuf_adj, index, length, none=(errno.ENOSPC,))
        return None if place is None else self.mtod(index)

    def trim(self, index: int, length: int) -> bool:
        """Remove `length` bytes at the end of a packet (DPDK: rte_pktmbuf_trim).

        Return False and remove nothing if the last segment has less data.
        """
        return self._write_or_none(lib.ivs_call_mbuf_trim, index, length, none=(errno.ENOSPC,)) is not None

    def read(self, index: int, offset: int = 0, length: int | None = None) -> bytes | None:
        """Return a copy of `length` bytes from byte `offset` of a packet; None: all bytes (DPDK: rte_pktmbuf_read).

        Return None if the packet is shorter.
        """
        import numpy as np

        if offset < 0 or (length is not None and length < 0):
            message = f"offset and length must not be negative, got {offset} and {length}"
            raise Invalid(f"mempool {self.name!r}: {message}")
        pkt_len = self._segment(index).pkt_len
        if pkt_len > min(self.n, lib.IVS_MBUF_SEGS_MAX) * self.data_room:
            self._raise_mbuf_error(-errno.EBADMSG, index)
        length = max(pkt_len - offset, 0) if length is None else length
        if offset + length > pkt_len:
            return None
        copy = np.empty(length, np.uint8)
        result = self._call(lib.ivs_mbuf_read, self._reader, index, offset, length, ffi.from_buffer(copy))
        if result == -errno.ENOSPC:  # a peer has shortened the packet since pkt_len was read
            return None
        if result < 0:
            self._raise_mbuf_error(result, index)
        return copy.tobytes()

    def headroom(self, index: int) -> int:
        """Return the bytes before the data of a segment (DPDK: rte_pktmbuf_headroom)."""
        size: int = self._segment(index).data_off
        return size

    def tailroom(self, index: int) -> int:
        """Return the bytes after the data of a segment (DPDK: rte_pktmbuf_tailroom)."""
        size: int = self._segment(index).tailroom
        return size
