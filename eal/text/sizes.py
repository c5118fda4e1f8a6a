# SPDX-License-Identifier: BSD-3-Clause
"""Sizes in bytes: units, parsing, formatting and alignment. Depends on nothing, so `eal.topology` can import it."""

from __future__ import annotations

import re

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as "4096", "512k", "1.5G" or "2 MiB"; a unit is a power of 1024.

    Raise ValueError for other text, and for a number of bytes with a fraction.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found or ("." in found[1] and not found[2]):
        raise ValueError(f"size must be a number with an optional unit, such as 64M, got {text!r}")
    factor = _UNITS[(found[2] or "").upper()]
    return int(float(found[1]) * factor) if "." in found[1] else int(found[1]) * factor


def size_text(size: int) -> str:
    """Return a size in the largest unit up to GiB that divides it: "2 MiB", "1000 B"."""
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def rounded_size_text(size: int) -> str:
    """Return a size rounded to about three digits: "2 MiB", "1.5 GiB", "126 GiB"."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor:
            return f"{round(size / factor, 1):g} {unit}" if size < 100 * factor else f"{size // factor} {unit}"
    return f"{size} B"


def align_up(value: int, align: int) -> int:
    """Return the smallest multiple of `align` that is not below `value` (DPDK: RTE_ALIGN_CEIL)."""
    return -(-value // align) * align


def is_power_of_two(value: int) -> bool:
    """Return whether `value` is a power of two (DPDK: rte_is_power_of_2)."""
    return value > 0 and value & (value - 1) == 0


def power_of_two_above(value: int) -> int:
    """Return the smallest power of two that is not below `value` (DPDK: rte_align64pow2)."""
    return 1 << max(value - 1, 0).bit_length()
