# SPDX-License-Identifier: BSD-3-Clause
"""eal.text.dtypes: dtypes are described and restored unchanged; invalid text raises Corrupt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from eal import Corrupt, EalError, Invalid
from eal.text import dtypes


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(
        npst.scalar_dtypes(),
        npst.array_dtypes(),
        npst.nested_dtypes(subtype_strategy=npst.scalar_dtypes(), max_itemsize=1 << 12),
    )
)
def test_described_dtype_is_restored(dtype: np.dtype) -> None:
    if dtype.subdtype is not None:
        dtype = np.dtype([("only", dtype)])
    assert dtypes.restore(dtypes.describe(dtype)) == dtype


def test_describe_of_dtype_with_too_many_fields_raises_invalid() -> None:
    with pytest.raises(Invalid, match="must have at most 16384 bytes"):
        dtypes.describe([(f"field{number}", "u1") for number in range(2000)])


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(["<f4", "O", "V", "i99", ""])
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=12,
)


@settings(deadline=None, max_examples=400)
@given(st.one_of(st.text(), JSON.map(json.dumps), st.lists(JSON).map(json.dumps)))
def test_restore_random_text_returns_dtype_or_raises_corrupt(text: str) -> None:
    try:
        dtype = dtypes.restore(text)
    except Corrupt:
        return
    assert isinstance(dtype, np.dtype)
    assert not dtype.hasobject


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        '"O"',
        '"|O"',
        '[["a","|O"]]',
        '[["a",[["b","O"]],[2]]]',
        '[["a","<f4"],["a","<f4"]]',
        '[["a","<f4",[-1]]]',
        '[["a","<f4",[9999999999999]]]',
        '"<f3"',
        "[[]]",
        '[["a"]]',
        "[1]",
        "[" * 5000 + "]" * 5000,
        '"' + "x" * 20000 + '"',
        "1e999",
        "\"__import__('os')\"",
    ],
    ids=lambda text: text[:20],
)
def test_restore_invalid_text_raises_corrupt(text: str) -> None:
    with pytest.raises(EalError) as caught:
        dtypes.restore(text)
    assert isinstance(caught.value, Corrupt)
