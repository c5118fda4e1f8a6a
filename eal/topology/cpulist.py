# SPDX-License-Identifier: BSD-3-Clause
"""CPU lists: sets of small numbers as the kernel writes them, "0-3,8" or "0000,0000010f"."""

from __future__ import annotations

from collections.abc import Iterable

from eal.errors import Invalid


def parse_list(text: str) -> frozenset[int]:
    """The numbers of "0-3,8,10-14:2"; an empty text is the empty set. Invalid when it is not such a list."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        if part.strip():
            numbers.update(_parse_range(part.strip(), text))
    return frozenset(numbers)


def _parse_range(part: str, text: str) -> range:
    span, _, step = part.partition(":")
    first, dash, last = span.partition("-")
    try:
        low = int(first)
        high = int(last) if dash else low
        stride = int(step) if step else 1
    except ValueError:
        raise Invalid(f"{text.strip()!r} is not a CPU list: write numbers and ranges, for example 0-3,8") from None
    if low < 0 or high < low or stride < 1 or high > 1 << 20:
        raise Invalid(f"{part!r} in the CPU list {text.strip()!r} is not a range: the lower number comes first")
    return range(low, high + 1, stride)


def parse_mask(text: str) -> int:
    """The bits of a hexadecimal mask with commas, as one integer. Invalid when it is not such a mask."""
    digits = text.strip().replace(",", "")
    try:
        return int(digits, 16) if digits else 0
    except ValueError:
        raise Invalid(f"{text.strip()!r} is not a CPU mask: expected hexadecimal digits and commas") from None


def mask_of(numbers: Iterable[int]) -> int:
    """The integer whose bits are these numbers."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def bits_of(mask: int) -> tuple[int, ...]:
    """The numbers of the set bits, ascending."""
    numbers = []
    while mask:
        low = mask & -mask
        numbers.append(low.bit_length() - 1)
        mask ^= low
    return tuple(numbers)


def format_list(numbers: Iterable[int]) -> str:
    """The shortest list for these numbers: (0, 1, 2, 8) gives "0-2,8"."""
    parts: list[str] = []
    run: list[int] = []
    for number in [*sorted(set(numbers)), None]:
        if run and (number is None or number != run[-1] + 1):
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        if number is not None:
            run.append(number)
    return ",".join(parts)
