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
    from eal.audit import Audit
    from eal.burst import Burst
    from eal.eal import Eal
    from eal.mbuf import MbufPool
    from eal.mempool import Mempool, MempoolFlag
    from eal.memzone import Memzone
    from eal.ring import Ring
    from eal.ring_format import RingFlag
    from eal.ring_zc import ZeroCopy
    from eal.segment import SOCKET_ID_ANY, Segment
    from eal.startup import current, init
    from eal.topology import lcores
    from eal.watches import Event, Watch

# Where each public name comes from.
_HOME = {
    "Eal": "eal.eal",
    "current": "eal.startup",
    "init": "eal.startup",
    "Memzone": "eal.memzone",
    "Segment": "eal.segment",
    "SOCKET_ID_ANY": "eal.segment",
    "Ring": "eal.ring",
    "RingFlag": "eal.ring_format",
    "Burst": "eal.burst",
    "ZeroCopy": "eal.ring_zc",
    "MbufPool": "eal.mbuf",
    "Mempool": "eal.mempool",
    "MempoolFlag": "eal.mempool",
    "Audit": "eal.audit",
    "lcores": "eal.topology",
    "Event": "eal.watches",
    "Watch": "eal.watches",
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

    from eal.eal import Eal
    from eal.startup import current

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
