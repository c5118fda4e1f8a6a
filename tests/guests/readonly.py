# SPDX-License-Identifier: BSD-3-Clause
"""Guest that has read-only shares and tries to change them in every possible way."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

import eal


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def error_of(call: Callable[..., Any], *arguments: Any) -> str:
    try:
        return f"no error, but {call(*arguments)!r}"
    except Exception as error:
        return type(error).__name__


def overwrite(resource: str) -> str:
    """Map a BAR writable without any check of eal, and write to it; return the result. QEMU drops the writes, the
    emulated bus refuses the open.
    """
    with open(resource, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as bar:
        before = bar[:]
        with suppress(OSError), open(resource, "r+b") as writable, mmap.mmap(writable.fileno(), 0) as mine:
            mine[0:8] = b"HACKED!!"
            mine[4096:8192] = bytes(range(256)) * 16
        return "as before" if bar[:] == before else "overwritten"


def main() -> None:
    with eal.init() as guest:
        facts = eal.memzone_lookup("facts")
        ring, pool = eal.ring_lookup("bulletin"), eal.mempool_lookup("frames")
        ones = np.ones(2, np.uint64)
        say(
            facts=bytes(facts.buf).rstrip(b"\0").decode(),
            readonly=[facts.readonly, facts.buf.readonly, ring.memzone.readonly],
            writeable=[facts.array("u1").flags.writeable, pool.array.flags.writeable],
            in_ring=ring.count,
            available=pool.available,
            first_frame=bytes(pool.object(0)[:5]).decode(),
        )
        say(
            buf=error_of(facts.buf.__setitem__, 0, 1),
            array=error_of(facts.array("u1").__setitem__, 0, 1),
            frame=error_of(pool.object(0).__setitem__, 0, 1),
            enqueue=error_of(ring.enqueue, 1),
            dequeue=error_of(ring.dequeue),
            enqueue_bulk=error_of(ring.enqueue_bulk, ones),
            dequeue_burst=error_of(ring.dequeue_burst, ones),
            burst=error_of(ring.burst(2).enqueue, 2),
            reset=error_of(ring.reset),
            get=error_of(pool.get),
            put=error_of(pool.put, 0),
            free=error_of(eal.memzone_free, facts),
        )
        table = f"{os.environ.get('EAL_SYSFS_ROOT', '/sys')}/bus/pci/devices/{guest.shares[0].address}/resource2"
        say(segment=overwrite(facts.segment.path), metadata=overwrite(table))
        while bytes(facts.buf[:4]) != b"news":  # the host's later writes are visible
            pass
        say(facts=bytes(facts.buf).rstrip(b"\0").decode())


main()
