# SPDX-License-Identifier: BSD-3-Clause
"""Pools of mbufs: headers, private areas and buffers as arrays; alloc, free and reference counts."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from eal._native import lib
from eal.mbuf.chains import PacketChains
from eal.mbuf.data import PacketData
from eal.mbuf.format import HEADER_SIZE, header_dtype
from eal.mempool.mempool import Mempool

if TYPE_CHECKING:
    import numpy as np

    from eal.memory.memzone import Memzone


def attach_pool(zone: Memzone, name: str) -> Mempool:
    """Return the mempool in `zone`, an MbufPool if its objects are mbufs. Raise Corrupt if validation fails."""
    return MbufPool(zone, name) if zone.flags & lib.IVS_MEMPOOL_MBUF else Mempool(zone, name)


class MbufPool(PacketData, PacketChains):
    """A pool of `n` mbufs with buffers of `data_room` bytes (DPDK: the result of rte_pktmbuf_pool_create).

    An mbuf is identified by a uint32 index, a packet by the index of its first segment. Methods have the names and
    rules of rte_pktmbuf functions; if room or mbufs are insufficient, they return None, False or 0 (DPDK: NULL or -1).

    Methods raise Invalid if an index is not less than `n` or an mbuf is free, Corrupt if a peer has damaged a header,
    Denied if they modify a read-only share, and Closed after the Eal was closed. One thread at a time may use a packet;
    any number of threads may change reference counts, alloc and free.

    `get` and `put` do not touch headers (DPDK: rte_mbuf_raw_alloc, rte_mbuf_raw_free).
    """

    # --- arrays -------------------------------------------------------------------------------------------

    @property
    def mbufs(self) -> np.ndarray[Any, Any]:
        """All headers, shape `(n,)`, without a copy: a structured array with the field names of rte_mbuf.

        `buf` is the mbuf whose buffer contains the data: its own index, or another one if attached. `next` is NO_MBUF
        (0xffffffff) in the last segment of a packet. `rss` is hash.rss. Read-only if the share is read-only.
        """
        return self._columns(0, header_dtype())

    @property
    def private(self) -> np.ndarray[Any, Any]:
        """All private areas as uint8, shape `(n, private_size)`, without a copy (DPDK: rte_mbuf_to_priv)."""
        return self._columns(HEADER_SIZE, "u1", self.private_size)

    @property
    def data(self) -> np.ndarray[Any, Any]:
        """All buffers as uint8, shape `(n, data_room)`, without a copy (DPDK: buf_addr).

        The data of a segment are the bytes from `data_off` to `data_off + data_len` of row `buf`.
        """
        return self._columns(HEADER_SIZE + self.private_size, "u1", self.data_room)

    def _columns(self, offset: int, dtype: Any, *shape: int) -> np.ndarray[Any, Any]:
        """Return an array of shape `(n, *shape)` over the bytes at `offset` in each object."""
        import numpy as np

        objects = self.memzone.buf[self._info.objects_offset + offset :]
        inner = np.empty(shape, dtype).strides
        return np.ndarray((self.n, *shape), dtype, objects, strides=(self.elt_stride, *inner))

    # --- alloc and free -----------------------------------------------------------------------------------

    def alloc_bulk(self, out: Any) -> int:
        """Fill the writable uint32 array `out` with empty mbufs; return their number, or 0 if too few are free.

        An empty mbuf has 128 bytes of headroom and one reference (DPDK: rte_pktmbuf_alloc_bulk).
        """
        result: int = lib.ivs_call_mbuf_alloc_bulk(self._pool, *self._indices(out, writable=True))
        if result < 0:
            self._fail(result)
        return result

    def free_bulk(self, indices: Any) -> None:
        """Free a uint32 array of packets with all segments (DPDK: rte_pktmbuf_free_bulk).

        Raise Invalid and free no packet if an index is not less than `n`. Raise after the remaining packets have been
        freed for every other error.
        """
        result = lib.ivs_call_mbuf_free_bulk(self._pool, *self._indices(indices))
        if result < 0:
            self._raise_mbuf_error(result, None, self._local.handle.fault)

    def alloc(self) -> int | None:
        """Allocate an empty mbuf; return its index, or None if no mbuf is free (DPDK: rte_pktmbuf_alloc)."""
        result: int = lib.ivs_call_mbuf_alloc(self._pool)
        if result < 0:
            if result == -errno.ENOBUFS:
                return None
            self._fail(result)
        return result

    def free(self, index: int) -> None:
        """Drop one reference to each segment of a packet; free segments without references (DPDK: rte_pktmbuf_free)."""
        result = self._call(lib.ivs_call_mbuf_free, self._pool, index)
        if result < 0:
            self._raise_mbuf_error(result, index, self._local.handle.fault)

    def free_seg(self, index: int) -> None:
        """Free one segment, not the following ones (DPDK: rte_pktmbuf_free_seg)."""
        result = self._call(lib.ivs_mbuf_free_seg, self._pool, index)
        if result < 0:
            self._raise_mbuf_error(result, index, self._local.handle.fault)

    def reset(self, index: int) -> None:
        """Reset the header to that of an empty mbuf; keep references and attachment (DPDK: rte_pktmbuf_reset)."""
        self._write(lib.ivs_mbuf_reset, index)

    # --- reference counts ---------------------------------------------------------------------------------

    def refcnt_read(self, index: int) -> int:
        """Return the reference count of an mbuf, 0 if it is free (DPDK: rte_mbuf_refcnt_read)."""
        return self._read(lib.ivs_call_mbuf_refcnt, index)

    def refcnt_update(self, index: int, value: int) -> int:
        """Add `value` to the reference count of one mbuf; return the new count (DPDK: rte_mbuf_refcnt_update).

        Raise Invalid if the count would be less than 1 (use `free`) or more than 65534.
        """
        return self._write(lib.ivs_mbuf_refcnt_update, index, value)

    def pktmbuf_refcnt_update(self, index: int, value: int) -> None:
        """Add `value` to the reference counts of all segments of a packet, or raise (DPDK: rte_pktmbuf_refcnt_update).

        Raise Invalid and change no count if one count would be less than 1 or more than 65534.
        """
        self._write(lib.ivs_mbuf_refcnt_update_all, index, value)

    def __repr__(self) -> str:
        return f"<MbufPool {self.name!r} {self.n} mbufs of {self.data_room} bytes>"
