# SPDX-License-Identifier: BSD-3-Clause
"""Names of objects: validation, and the 32-byte form in shared memory."""

from __future__ import annotations

from eal._native import lib
from eal.errors import Invalid, InvalidType

NAME_SIZE: int = lib.IVS_NAME_SIZE
RING_PREFIX = "RG_"
POOL_PREFIX = "MP_"

# Limits in bytes, as in DPDK: the name of a ring's or mempool's zone includes the prefix.
LIMITS = {
    "memzone": NAME_SIZE - 1,
    "group": NAME_SIZE - 1,
    "metadata": NAME_SIZE - 1,
    "ring": 28,
    "mempool": 25,
}


def check_name(name: object, kind: str) -> str:
    """Return the name of an object of a kind in LIMITS. Raise Invalid for an invalid name, InvalidType for no str."""
    if not isinstance(name, str):
        raise InvalidType(f"{kind} name must be a str, got {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise Invalid(f"{kind} name must be encodable in UTF-8, got {name!r}") from error
    limit = LIMITS[kind]
    if not 1 <= size <= limit:
        raise Invalid(f"{kind} name must have 1 to {limit} bytes, got {size}: {name!r}")
    if any(c == "/" or ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in name):
        raise Invalid(f"{kind} name must not contain '/' or control characters, got {name!r}")
    return name


def check_user_zone(name: object) -> str:
    """Return the name of a zone that belongs to neither a ring nor a mempool. Raise as `check_name`."""
    checked = check_name(name, "memzone")
    if checked.startswith((RING_PREFIX, POOL_PREFIX)):
        raise Invalid(f"memzone name must not start with RG_ or MP_ (zones of rings and mempools), got {checked!r}")
    return checked


def pack_name(name: str) -> bytes:
    """Return a valid name in its 32-byte form."""
    return name.encode().ljust(NAME_SIZE, b"\0")


def unpack_name(raw: bytes) -> str:
    """Return the name in a 32-byte form that the C core has validated. Raise UnicodeDecodeError if it is not UTF-8."""
    return raw.split(b"\0", 1)[0].decode()
