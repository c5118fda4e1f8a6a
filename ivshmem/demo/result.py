# SPDX-License-Identifier: BSD-3-Clause
"""DemoResult: the counters and faults of one demo run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DemoResult:
    """The fields of `ivshmem demo --json`. `size` is in bytes, `rate` in messages per second."""

    mode: str
    messages: int
    size: int
    created: dict[str, str]
    cmdline: str
    guest: dict[str, Any] = field(default_factory=dict)
    answered: int = 0
    lost: int = 0
    reordered: int = 0
    corrupted: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    bytes_per_second: float = 0.0
    pool_available: int = 0
    pool_size: int = 0
    faults: list[str] = field(default_factory=list)
    ok: bool = False
