# SPDX-License-Identifier: BSD-3-Clause
"""Array types in shared memory: a numpy dtype as JSON text, and back without trusting it."""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Any

from eal.errors import Corrupt, Invalid, InvalidType

if TYPE_CHECKING:
    import numpy as np

MAX_TEXT = 16384  # bytes of a description: room for hundreds of fields, and a bound on what a peer makes us parse


def describe(dtype: Any) -> str:
    """A dtype as JSON text of numpy's own description. Raises Invalid for one that holds Python objects."""
    import numpy as np

    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise Invalid(f"dtype {dtype} holds Python objects, which mean nothing in another process")
    text = json.dumps(np.lib.format.dtype_to_descr(dtype), separators=(",", ":"))
    if len(text) > MAX_TEXT:
        raise Invalid(f"the description of dtype {dtype} has {len(text)} bytes: {MAX_TEXT} are allowed")
    return text


def restore(text: str) -> np.dtype[Any]:
    """The dtype that a description names. Raises Corrupt for anything that `describe` would not have written."""
    import numpy as np

    try:
        if len(text) > MAX_TEXT:
            raise ValueError(f"{len(text)} bytes long")
        data = json.loads(text)
        if not isinstance(data, str | list):
            raise ValueError("neither a type nor a list of fields")
        dtype = np.lib.format.descr_to_dtype(_tuples(data))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, SyntaxError, MemoryError) as error:
        raise Corrupt(f"not a dtype: {text[:80]!r} ({error})") from error
    if dtype.hasobject:
        raise Corrupt(f"dtype {dtype} would hold pointers from another process: refused")
    return dtype


def dims_of(shape: Any) -> tuple[int, ...]:
    """A shape as a tuple of ints. Raises InvalidType for what is none."""
    try:
        return (operator.index(shape),) if hasattr(shape, "__index__") else tuple(map(operator.index, shape))
    except TypeError as error:
        raise InvalidType(f"a shape is an int or a tuple of ints, not {shape!r}") from error


def _tuples(data: Any) -> Any:
    """JSON has no tuples; numpy wants fields as tuples, in lists."""
    if not isinstance(data, list):
        return data
    return [tuple(_field(part) for part in f) if isinstance(f, list) else f for f in data]


def _field(part: Any) -> Any:
    """A part of one field: a name, a (title, name) pair, a type string, a nested description or a shape."""
    if isinstance(part, list) and not any(isinstance(item, list) for item in part):
        return tuple(part)
    return _tuples(part)
