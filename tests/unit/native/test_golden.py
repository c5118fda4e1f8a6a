# SPDX-License-Identifier: BSD-3-Clause
"""Golden files: the current code writes and reads each recorded format."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eal import Mempool, Ring, RingFlag
from eal._native import ffi, lib
from eal.linux.mapping import Mapping
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment, read_header
from eal.metadata.records import Kind, Table
from eal.metadata.table_file import METADATA_MAGIC, REGISTRY_MAGIC, TableFile
from tests.golden.make import ENTRIES, EPOCH, FILE_UUID, MAKERS, OWN_SEGMENT, SEGMENT, zeroed, zone_in

GOLDEN = Path(__file__).parents[2] / "golden"


def golden(name: str) -> bytes:
    return gzip.decompress((GOLDEN / f"{name}.gz").read_bytes())


def mapped(name: str) -> Mapping:
    """Return a shared mapping with the content of a golden file."""
    data = golden(name)
    mapping: Mapping = zeroed(len(data))
    mapping.view()[:] = data
    return mapping


@pytest.mark.parametrize("name", MAKERS)
def test_written_format_equals_golden_file(name: str) -> None:
    """If the format has changed, increment its version in layout.h, run tests/golden/make.py, keep the old file."""
    made, old = MAKERS[name](), golden(name)
    first = next((at for at, (a, b) in enumerate(zip(made, old, strict=False)) if a != b), min(len(made), len(old)))
    assert made == old, (
        f"{name} differs from its golden file at byte {first:#x} ({len(made)} bytes, recorded {len(old)}): increment "
        "its version in native/include/layout.h, run tests/golden/make.py, and keep the old file"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_segment_header_is_readable(version: int) -> None:
    page = mapped(f"segment-header-{version}")
    whole = zeroed(SEGMENT.size)
    whole.view(0, len(page.view()))[:] = page.view()
    assert read_header(whole, "golden") == SEGMENT
    found = Segment(SEGMENT, whole, "", socket_id=-1).participants()
    assert (found[0].slot, found[0].owner, found[0].process) == (1, 0x0B0B0B0B_00000002, 2)
    assert [(p.slot, p.heartbeat, p.ack, p.share) for p in found] == [(1, 0, 0, 0), (2, 2, 5, 0x33221100)][:version]


def test_metadata_file_is_readable() -> None:
    file = TableFile.open(mapped("metadata-1"), METADATA_MAGIC, "golden")
    assert (file.info.name, file.info.uuid, file.info.version) == ("vm0", FILE_UUID, 1)
    table = file.read()
    assert table.entries == ENTRIES
    assert table.segments[0] == SEGMENT
    assert (table.segments[1].readonly, table.segments[1].group) == (True, "slides")
    assert (table.epoch, table.kept, table.selector) == (EPOCH, False, 3)


def test_metadata_file_array_has_dtype_and_shape() -> None:
    entry = TableFile.open(mapped("metadata-1"), METADATA_MAGIC, "golden").read().find(Kind.MEMZONE, "frame")
    assert entry is not None
    segment = Segment(SEGMENT, zeroed(SEGMENT.size), "", socket_id=-1)
    array = Memzone(entry, segment).array()
    assert array.shape == (24, 20)
    assert array.dtype == np.dtype([("rgb", "u1", (3,)), ("depth", ">f4")])


def test_registry_is_readable() -> None:
    table = TableFile.open(mapped("registry-1"), REGISTRY_MAGIC, "golden").read()
    assert table == Table((OWN_SEGMENT,), ENTRIES, EPOCH, kept=True, selector=2)


def test_ring_is_usable() -> None:
    ring = Ring(zone_in(mapped("ring-1"), "packets", Kind.RING), "packets", 1.0)
    assert (ring.capacity, ring.size, ring.elem_size, ring.count) == (7, 8, 12, 3)
    assert ring.flags == RingFlag.MP_RTS_ENQ | RingFlag.SC_DEQ | RingFlag.EXACT_SZ
    assert ring.enqueue(b"twelve bytes")
    elements = [ring.dequeue() for _ in range(5)]
    assert elements == [*(bytes(range(n, n + 12)) for n in (2, 3, 4)), b"twelve bytes", None]


def test_mempool_is_readable() -> None:
    pool = Mempool(zone_in(mapped("mempool-1"), "buffers", Kind.MEMPOOL), "buffers")
    assert (pool.n, pool.elt_size, pool.cache_size, pool.available, pool.in_use) == (70, 20, 4, 67, 3)
    audit = pool.audit()
    assert audit.ok
    assert len(audit.in_hand) == 3
    assert [len(cached) for cached in audit.cached.values()] == [4]
    for index in audit.in_hand:
        assert bytes(pool.object(index)) == bytes([index + 1]) * 20


@pytest.mark.parametrize("name", MAKERS)
def test_unknown_version_is_rejected(name: str) -> None:
    """The version field alone decides, before the CRC is checked."""
    mapping = mapped(name)
    at = 72 if name.startswith("ring") else 8
    mapping.view()[at] += 1
    base = mapping.pointer()
    checks: dict[str, Callable[[], int]] = {
        "segment": lambda: lib.ivs_segment_check(base, 1 << 40, ffi.new("struct ivs_segment_info *")),
        "metadata": lambda: check_table(mapping, METADATA_MAGIC),
        "registry": lambda: check_table(mapping, REGISTRY_MAGIC),
        "ring": lambda: lib.ivs_ring_attach(
            ffi.new("struct ivs_ring *"), base, mapping.length, 0, ffi.new("struct ivs_ring_info *")
        ),
        "mempool": lambda: check_pool(mapping),
        "mbuf": lambda: check_pool(mapping),
    }
    assert checks[name.split("-")[0]]() == lib.IVS_FAULT_VERSION


def check_table(mapping: Mapping, magic: int) -> int:
    fault: int = lib.ivs_table_check_file(mapping.pointer(), mapping.length, magic, ffi.new("struct ivs_table_info *"))
    return fault


def check_pool(mapping: Mapping) -> int:
    fault: int = lib.ivs_mempool_check(mapping.pointer(), mapping.length, ffi.new("struct ivs_mempool_info *"))
    return fault
