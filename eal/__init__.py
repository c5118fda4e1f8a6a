# SPDX-License-Identifier: BSD-3-Clause
"""eal: a small environment abstraction layer for hosts that share memory with virtual machines, and for their guests.

`import eal` loads the errors and function signatures alone; everything else is imported at first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

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
from eal.lazy_exports import export_lazily
from eal.lifecycle.functions import (
    array_reserve,
    mempool_create,
    mempool_free,
    mempool_lookup,
    mempools,
    memzone_dump,
    memzone_free,
    memzone_lookup,
    memzone_reserve,
    memzones,
    pktmbuf_pool_create,
    ring_create,
    ring_free,
    ring_lookup,
    rings,
    segment_create,
    segments,
    watch,
)
from eal.memory.socket_id import SOCKET_ID_ANY

if TYPE_CHECKING:
    from eal.lifecycle.eal import Eal
    from eal.lifecycle.startup import current, init
    from eal.mbuf.pool import MbufPool
    from eal.memory.memzone import Memzone
    from eal.memory.segment import Segment
    from eal.mempool.audit import Audit
    from eal.mempool.format import MempoolFlag
    from eal.mempool.mempool import Mempool
    from eal.probe.events import Event, Watch
    from eal.ring.burst import Burst
    from eal.ring.format import RingFlag
    from eal.ring.ring import Ring
    from eal.ring.zero_copy import ZeroCopy
    from eal.topology.model import lcores

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

# The imports of the block above, as they happen at run time.
export_lazily(
    __name__,
    {
        "Eal": "eal.lifecycle.eal",
        "current": "eal.lifecycle.startup",
        "init": "eal.lifecycle.startup",
        "MbufPool": "eal.mbuf.pool",
        "Memzone": "eal.memory.memzone",
        "Segment": "eal.memory.segment",
        "Audit": "eal.mempool.audit",
        "Mempool": "eal.mempool.mempool",
        "MempoolFlag": "eal.mempool.format",
        "Event": "eal.probe.events",
        "Watch": "eal.probe.events",
        "Burst": "eal.ring.burst",
        "RingFlag": "eal.ring.format",
        "Ring": "eal.ring.ring",
        "ZeroCopy": "eal.ring.zero_copy",
        "lcores": "eal.topology.model",
    },
)


def get_include() -> str:
    """Return the directory of the C headers, for C programs that use rings and mempools.

    The C sources to compile with them are in its subdirectory `src`.
    """
    return os.path.join(os.path.dirname(__file__), "include")
