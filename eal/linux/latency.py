# SPDX-License-Identifier: BSD-3-Clause
"""Latency of mapped memory: time loads and atomic operations, and compare them with ordinary memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eal._native import ffi, lib
from eal.linux.mapping import Mapping

UNCACHED_FACTOR = 8.0  # a load from DRAM takes at least 50 times as long as an L1 hit
_ROUNDS, _BATCHES = 200, 9


@dataclass(frozen=True)
class Speed:
    """Nanoseconds per load and per atomic addition, of the measured memory and of ordinary memory of this process.

    `atomic` is None if it was not measured.
    """

    load: float
    ordinary_load: float
    atomic: float | None
    ordinary_atomic: float

    @property
    def uncached(self) -> bool:
        """Whether loads bypass the processor caches."""
        return self.load > UNCACHED_FACTOR * self.ordinary_load

    def __str__(self) -> str:
        text = f"a load takes {self.load:.1f} ns, {self.ordinary_load:.1f} on ordinary memory"
        if self.atomic is not None:
            text += f"; an atomic {self.atomic:.1f} ns, {self.ordinary_atomic:.1f} on ordinary memory"
        return text


def measure(mapping: Mapping, atomic_at: int | None = None) -> Speed:
    """Time loads of a mapping's first word, and atomic additions of 0 to the word at offset `atomic_at` if given.

    The result is the fastest of several batches, which excludes interruptions. Takes less than 5 ms on uncached memory.
    """
    ordinary = ffi.new("uint64_t[8]")
    measured, base = mapping.pointer(), mapping.address
    atomic = None
    if atomic_at is not None:
        atomic = _fastest(lambda: lib.ivs_time_atomics(ffi.cast("void *", base + atomic_at), _ROUNDS))
    return Speed(
        load=_fastest(lambda: lib.ivs_time_loads(measured, _ROUNDS)),
        ordinary_load=_fastest(lambda: lib.ivs_time_loads(ordinary, _ROUNDS)),
        atomic=atomic,
        ordinary_atomic=_fastest(lambda: lib.ivs_time_atomics(ordinary, _ROUNDS)),
    )


def _fastest(batch: Callable[[], int]) -> float:
    return max(min(batch() for _ in range(_BATCHES)), 1) / _ROUNDS
