# SPDX-License-Identifier: BSD-3-Clause
"""Dtypes in shared memory: describe a numpy dtype as JSON text, and restore it from untrusted text."""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Any

from eal.errors import Corrupt, Invalid, InvalidType

if TYPE_CHECKING:
    import numpy as np

MAX_TEXT = 16384  # bytes of a description: enough for hundreds of fields, and a limit for the text of a hostile peer


def describe(dtype: Any) -> str:
    """Return numpy's description of a dtype as JSON text. Raise Invalid if the dtype contains Python objects."""
    import numpy as np

    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise Invalid(f"dtype must not contain Python objects, which other processes cannot use, got {dtype}")
    text = json.dumps(np.lib.format.dtype_to_descr(dtype), separators=(",", ":"))
    if len(text) > MAX_TEXT:
        raise Invalid(f"dtype description must have at most {MAX_TEXT} bytes, got {len(text)}: {dtype}")
    return text


def restore(text: str) -> np.dtype[Any]:
    """Return the dtype of a description. Raise Corrupt for text that `describe` cannot have written."""
    import numpy as np

    try:
        if len(text) > MAX_TEXT:
            raise ValueError(f"more than {MAX_TEXT} bytes")
        data = json.loads(text)
        if not isinstance(data, str | list):
            raise ValueError("neither a type nor a list of fields")
        dtype = np.lib.format.descr_to_dtype(_tuples(data))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, SyntaxError, MemoryError) as error:
        raise Corrupt(f"not a dtype: {text[:80]!r} ({error})") from error
    if dtype.hasobject:
        raise Corrupt(f"dtype {dtype} contains pointers of another process")
    return dtype


def dims_of(shape: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of ints. Raise InvalidType if it is neither an int nor a sequence of ints."""
    try:
        return (operator.index(shape),) if hasattr(shape, "__index__") else tuple(map(operator.index, shape))
    except TypeError as error:
        raise InvalidType(f"shape must be an int or a tuple of ints, got {shape!r}") from error


def _tuples(data: Any) -> Any:
    """Convert the lists of JSON to the lists of tuples that numpy requires."""
    if not isinstance(data, list):
        return data
    return [tuple(_field(part) for part in f) if isinstance(f, list) else f for f in data]


def _field(part: Any) -> Any:
    """Convert a part of one field: a name, a (title, name) pair, a type string, a nested description or a shape."""
    if isinstance(part, list) and not any(isinstance(item, list) for item in part):
        return tuple(part)
    return _tuples(part)
