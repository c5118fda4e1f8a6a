# SPDX-License-Identifier: BSD-3-Clause
"""eal.text.sizes: parsing, formatting and alignment of sizes in bytes."""

from __future__ import annotations

import sys

import pytest

from eal.text import sizes
from eal.text.sizes import GIB, KIB, MIB, TIB, parse_size, rounded_size_text, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2M", 2 * MIB),
        ("1G", GIB),
        ("1g", GIB),
        ("512k", 512 * KIB),
        ("4096", 4096),
        ("0", 0),
        (" 3T ", 3 * TIB),
        (f"{2**53 + 1}", 2**53 + 1),
    ],
)
def test_parse_size_with_or_without_unit_returns_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8 * GIB), ("1.5GiB", 3 * GIB // 2), ("64 mb", 64 * MIB), ("4K", 4096)]
)
def test_parse_size_with_long_unit_or_fraction_returns_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1X", "-1M", "1.5", "1.M", "1 2M", "2MM", "1e3", "0x10", "1_0M", "iB"])
def test_parse_size_of_invalid_text_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="size must be a number with an optional unit"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1000, "1000 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1025, "1025 B"),
        (1536, "1536 B"),
        (4096, "4 KiB"),
        (1 << 20, "1 MiB"),
        (3 << 19, "1536 KiB"),
        (20 << 20, "20 MiB"),
        (1 << 30, "1 GiB"),
        (1 << 41, "2048 GiB"),
        ((1 << 30) + 1, "1073741825 B"),
    ],
)
def test_size_text_is_exact(size: int, text: str) -> None:
    assert size_text(size) == text
    if not text.endswith(" B"):
        assert parse_size(text) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (2 * MIB, "2 MiB"),
        (126 * GIB + 5, "126 GiB"),
        (GIB + 1, "1 GiB"),
        (3 * TIB // 2, "1.5 TiB"),
    ],
)
def test_rounded_size_text_has_about_three_digits(size: int, text: str) -> None:
    assert rounded_size_text(size) == text


def test_align_up_and_power_of_two_match_definition() -> None:
    for value in range(200):
        assert sizes.align_up(value, 24) == next(n for n in range(0, 400, 24) if n >= value)
        assert sizes.is_power_of_two(value) == (value in (1, 2, 4, 8, 16, 32, 64, 128))
        assert sizes.power_of_two_above(value) == next(n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n >= value)
    assert not sizes.is_power_of_two(-4)
    assert sizes.power_of_two_above(sys.maxsize) == sys.maxsize + 1
