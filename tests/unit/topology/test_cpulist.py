# SPDX-License-Identifier: BSD-3-Clause
"""CPU lists and CPU masks."""

from __future__ import annotations

import pytest

from eal.errors import Invalid
from eal.topology.cpulist import bits_of, format_list, mask_of, parse_list, parse_mask
from tests.machines import mask


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", ()), ("3", (3,)), ("0-3,8", (0, 1, 2, 3, 8)), ("0-7:3", (0, 3, 6)), (" 1, 2\n", (1, 2))],
)
def test_parse_list_returns_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert sorted(parse_list(text)) == list(numbers)


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "1-", "0-9999999999", "1;2", "0-4:0"])
def test_parse_list_malformed_raises_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        parse_list(text)


def test_lists_and_masks_round_trip() -> None:
    numbers = (0, 1, 2, 31, 32, 95, 200)
    assert tuple(sorted(parse_list(format_list(numbers)))) == numbers
    assert bits_of(parse_mask(mask(numbers))) == numbers
    assert mask_of(numbers) == parse_mask(mask(numbers))
    assert format_list(numbers) == "0-2,31-32,95,200"
