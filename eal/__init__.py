# SPDX-License-Identifier: BSD-3-Clause
"""eal: a mini environment abstraction layer, for hosts that share memory with virtual machines and for their guests.

Everything is loaded when it is first used: `import eal` costs next to nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from eal.errors import (
    Closed,
    Corrupt,
    Denied,
    Detached,
    EalError,
    Exists,
    InUse,
    Invalid,
    InvalidType,
    NoMemory,
    NotFound,
    Stale,
    Stalled,
)

if TYPE_CHECKING:
    from eal.lifecycle.eal import Eal
    from eal.lifecycle.startup import current, init
    from eal.mbuf.pool import MbufPool
    from eal.memory.memzone import Memzone
    from eal.memory.segment import SOCKET_ID_ANY, Segment
    from eal.mempool.audit import Audit
    from eal.mempool.mempool import Mempool, MempoolFlag
    from eal.probe.events import Event, Watch
    from eal.ring.burst import Burst
    from eal.ring.format import RingFlag
    from eal.ring.ring import Ring
    from eal.ring.zero_copy import ZeroCopy
    from eal.topology.model import lcores

# Where each public name comes from.
_HOME = {
    "Eal": "eal.lifecycle.eal",
    "current": "eal.lifecycle.startup",
    "init": "eal.lifecycle.startup",
    "Memzone": "eal.memory.memzone",
    "Segment": "eal.memory.segment",
    "SOCKET_ID_ANY": "eal.memory.segment",
    "Ring": "eal.ring.ring",
    "RingFlag": "eal.ring.format",
    "Burst": "eal.ring.burst",
    "ZeroCopy": "eal.ring.zero_copy",
    "MbufPool": "eal.mbuf.pool",
    "Mempool": "eal.mempool.mempool",
    "MempoolFlag": "eal.mempool.mempool",
    "Audit": "eal.mempool.audit",
    "lcores": "eal.topology.model",
    "Event": "eal.probe.events",
    "Watch": "eal.probe.events",
}

# Methods of the process's own Eal that are module functions too.
_METHODS = (
    "memzone_reserve",
    "memzone_lookup",
    "memzone_free",
    "memzones",
    "memzone_dump",
    "array_reserve",
    "segments",
    "segment_create",
    "ring_create",
    "ring_lookup",
    "ring_free",
    "rings",
    "mempool_create",
    "pktmbuf_pool_create",
    "mempool_lookup",
    "mempool_free",
    "mempools",
    "watch",
)


def get_include() -> str:
    """The folder of the C headers, for programs that work rings and pools from C; the sources they are compiled with
    are in its folder `src`.
    """
    return os.path.join(os.path.dirname(__file__), "include")


def __getattr__(name: str) -> Any:
    if home := _HOME.get(name):
        value = getattr(import_module(home), name)
    elif name in _METHODS:
        value = _method(name)
    else:
        raise AttributeError(f"module 'eal' has no attribute {name!r}")
    globals()[name] = value
    return value


def _method(name: str) -> Any:
    import functools

    from eal.lifecycle.eal import Eal
    from eal.lifecycle.startup import current

    method = getattr(Eal, name)

    @functools.wraps(method)
    def call(*args: Any, **keywords: Any) -> Any:
        return getattr(current(), name)(*args, **keywords)

    return call


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_METHODS])


__all__ = [
    "Eal",
    "init",
    "current",
    "get_include",
    "Memzone",
    "Segment",
    "SOCKET_ID_ANY",
    "Ring",
    "RingFlag",
    "Burst",
    "ZeroCopy",
    "Mempool",
    "MbufPool",
    "MempoolFlag",
    "Audit",
    "Event",
    "Watch",
    "lcores",
    *_METHODS,
    "EalError",
    "NotFound",
    "Exists",
    "Invalid",
    "InvalidType",
    "NoMemory",
    "Denied",
    "InUse",
    "Corrupt",
    "Stalled",
    "Closed",
    "Detached",
    "Stale",
]
