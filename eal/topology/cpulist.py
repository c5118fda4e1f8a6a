# SPDX-License-Identifier: BSD-3-Clause
"""CPU lists and CPU masks in the kernel's notation: "0-3,8" and "0000,0000010f"."""

from __future__ import annotations

from collections.abc import Iterable

from eal.errors import Invalid


def parse_list(text: str) -> frozenset[int]:
    """Return the numbers of a CPU list such as "0-3,8,10-14:2"; an empty text is the empty set.

    Raise Invalid for text in another format.
    """
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
        raise Invalid(f"CPU list must be numbers and ranges such as 0-3,8, got {text.strip()!r}") from None
    if low < 0 or high < low or stride < 1 or high > 1 << 20:
        raise Invalid(f"range in CPU list {text.strip()!r} must be LOW-HIGH within 0-{1 << 20}, got {part!r}")
    return range(low, high + 1, stride)


def parse_mask(text: str) -> int:
    """Return a CPU mask, hexadecimal words with commas between them, as an integer.

    Raise Invalid for text in another format.
    """
    digits = text.strip().replace(",", "")
    try:
        return int(digits, 16) if digits else 0
    except ValueError:
        raise Invalid(f"CPU mask must be hexadecimal digits and commas, got {text.strip()!r}") from None


def mask_of(numbers: Iterable[int]) -> int:
    """Return the integer with these bits set."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def bits_of(mask: int) -> tuple[int, ...]:
    """Return the numbers of the set bits, ascending."""
    numbers = []
    while mask:
        low = mask & -mask
        numbers.append(low.bit_length() - 1)
        mask ^= low
    return tuple(numbers)


def format_list(numbers: Iterable[int]) -> str:
    """Return the shortest CPU list of these numbers: (0, 1, 2, 8) becomes "0-2,8"."""
    parts: list[str] = []
    run: list[int] = []
    for number in [*sorted(set(numbers)), None]:
        if run and (number is None or number != run[-1] + 1):
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        if number is not None:
            run.append(number)
    return ",".join(parts)
