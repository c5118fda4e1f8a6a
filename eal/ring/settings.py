# SPDX-License-Identifier: BSD-3-Clause
"""Settings and text dump of a ring."""

from __future__ import annotations

import errno
from typing import TextIO

from eal._native import ffi, lib
from eal.errors import Invalid
from eal.ring.handle import RingHandle
from eal.ring.zero_copy import CONSUMER, PRODUCER

_NO_HTD_MAX = 0xFFFF_FFFF  # the C core's value for a side that is not RTS
_DUMP_ROOM = 1024  # bytes; a dump has a fixed number of lines


class RingSettings:
    """The RTS settings of a ring, and its dump."""

    name: str
    capacity: int
    _handle: RingHandle

    @property
    def prod_htd_max(self) -> int | None:
        """RTS producers: the maximum distance of head and tail, in elements; None on a side of another sync type.

        May be set before others attach (DPDK: rte_ring_set_prod_htd_max). Raises Invalid on another side, or if the
        value is out of range.
        """
        return self._htd_max(PRODUCER)

    @prod_htd_max.setter
    def prod_htd_max(self, value: int) -> None:
        self._set_htd_max(PRODUCER, value)

    @property
    def cons_htd_max(self) -> int | None:
        """The same for RTS consumers (DPDK: rte_ring_set_cons_htd_max)."""
        return self._htd_max(CONSUMER)

    @cons_htd_max.setter
    def cons_htd_max(self, value: int) -> None:
        self._set_htd_max(CONSUMER, value)

    def _htd_max(self, role: int) -> int | None:
        value: int = lib.ivs_ring_htd_max(self._handle.open(), role)
        return None if value == _NO_HTD_MAX else value

    def _set_htd_max(self, role: int, value: int) -> None:
        if not isinstance(value, int) or not 0 <= value <= self.capacity:
            raise Invalid(f"ring {self.name!r}: htd_max must be an int from 0 to {self.capacity}, got {value!r}")
        result = lib.ivs_ring_set_htd_max(self._handle.open(), role, value)
        if result < 0:
            self._handle.fail(result, {errno.ENOTSUP: "only an RTS side has an htd_max"})

    def dump(self, file: TextIO) -> None:
        """Write the ring's state (DPDK: rte_ring_dump)."""
        text = ffi.new("char[]", _DUMP_ROOM)
        self._handle.check(lib.ivs_ring_dump(self._handle.open(), text, len(text)))
        file.write(ffi.string(text).decode(errors="replace"))
