# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures that start host processes, each in a prefix of its own, and leave live, kept and dead prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_HOST = """
import sys, eal, ivshmem
made = eal.init(file_prefix=sys.argv[1] + sys.argv[2], no_huge=True)
metadata = ivshmem.metadata_create("of" + sys.argv[2])
metadata.add_memzone(eal.memzone_reserve("zone", 64))
print("made", flush=True)
sys.stdin.readline()
made.detach() if sys.argv[3:] == ["keep"] else made.close()
"""


@pytest.fixture
def host(peer: Callable[..., Any], prefix: str) -> Iterator[Callable[..., Any]]:
    """Return a function: `host("x")` starts a process of file_prefix PREFIX + "x" with a metadata file "ofx"."""

    def start(suffix: str, *how: str) -> Any:
        process = peer(_HOST, suffix, *how)
        process.hear()
        return process

    yield start
    for path in Path("/dev/shm").glob(f"ivshmem.*.{prefix}*"):
        path.unlink()


@pytest.fixture
def live_host(host: Callable[..., Any]) -> Any:
    """Leave prefixes that end in "alive", "dead" and "kept"; return the live process."""
    host("dead").crash()
    host("kept", "keep").end()
    return host("alive")


def data_files(prefix: str) -> set[Path]:
    """Return the segment and metadata files of a prefix."""
    return set(Path("/dev/shm").glob(f"ivshmem.*.{prefix}.*"))
