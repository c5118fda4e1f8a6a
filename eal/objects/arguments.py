# SPDX-License-Identifier: BSD-3-Clause
"""Checks of the arguments that all functions for creating objects have in common."""

from __future__ import annotations

from eal.errors import Exists, Invalid, InvalidType
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Kind
from eal.text.names import check_name


def check_placement(group: object, socket_id: object) -> None:
    """Raise Invalid for an impossible group name or NUMA node, InvalidType for arguments of another type."""
    check_name(group, "group")
    if not isinstance(socket_id, int):
        raise InvalidType(f"socket_id must be an int, got {type(socket_id).__name__}")
    if not SOCKET_ID_ANY <= socket_id < 1 << 31:
        raise Invalid(f"socket_id must be a NUMA node or SOCKET_ID_ANY ({SOCKET_ID_ANY}), got {socket_id}")


def check_same(kind: Kind, name: str, pairs: dict[str, tuple[object, object]]) -> None:
    """Raise Exists for the first pair of existing and requested value that differs. `pairs` is keyed by argument."""
    for argument, (existing, requested) in pairs.items():
        if existing != requested:
            raise Exists(
                f"{kind.name.lower()} {name!r} exists with {argument} {existing}, not {requested}; pass the existing "
                "value or choose another name"
            )
