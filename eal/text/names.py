# SPDX-License-Identifier: BSD-3-Clause
"""Names: the rules for them, and their 32-byte form in shared memory."""

from __future__ import annotations

from eal._native import lib
from eal.errors import Invalid, InvalidType

NAME_SIZE: int = lib.IVS_NAME_SIZE
RING_PREFIX = "RG_"
POOL_PREFIX = "MP_"

# What an object's name may have at most, in bytes: a zone's holds the prefix too (DPDK's limits).
LIMITS = {
    "memzone": NAME_SIZE - 1,
    "group": NAME_SIZE - 1,
    "metadata": NAME_SIZE - 1,
    "ring": 28,
    "mempool": 25,
}


def check_name(name: object, kind: str) -> str:
    """Gives the name back, or raises Invalid (InvalidType for what is no str) and says which rule it breaks."""
    if not isinstance(name, str):
        raise InvalidType(f"the name of a {kind} is a str, not {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise Invalid(f"{kind} name {name!r} cannot be written as UTF-8: choose another") from error
    limit = LIMITS[kind]
    if not 1 <= size <= limit:
        raise Invalid(f"{kind} name {name!r} has {size} bytes: 1 to {limit} are allowed")
    if any(c == "/" or ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in name):
        raise Invalid(f"{kind} name {name!r} contains '/' or a control character: leave it out")
    return name


def check_user_zone(name: object) -> str:
    """As check_name, for a zone that is neither a ring's nor a pool's."""
    checked = check_name(name, "memzone")
    if checked.startswith((RING_PREFIX, POOL_PREFIX)):
        raise Invalid(f"memzone name {name!r}: RG_ and MP_ are kept for the zones of rings and mempools")
    return checked


def pack_name(name: str) -> bytes:
    """A checked name in its 32 bytes."""
    return name.encode().ljust(NAME_SIZE, b"\0")


def unpack_name(raw: bytes) -> str:
    """The name in 32 bytes that the C core has checked. Raises UnicodeDecodeError if it is not UTF-8."""
    return raw.split(b"\0", 1)[0].decode()
