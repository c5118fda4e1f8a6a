# SPDX-License-Identifier: BSD-3-Clause
"""Dumps of metadata files as text and as data."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import eal
import ivshmem
from eal.metadata.lookup import open_metadata
from ivshmem.metadata.dump import dump_table, table_json


@pytest.fixture
def metadata(primary: eal.Eal) -> ivshmem.Metadata:
    made = ivshmem.metadata_create("vm 0")
    made.add_ring(eal.ring_create("packets", 8, elem_size=4))
    made.add_mempool(eal.mempool_create("buffers", 16, 64))
    made.add_memzone(eal.memzone_reserve("zeta", 1000, align=4096))
    made.add_memzone(eal.array_reserve("alpha", (3, 4), "<f4", group="seen"), readonly=True)
    return made


def dumped(metadata: ivshmem.Metadata) -> str:
    out = io.StringIO()
    metadata.dump(out)
    return out.getvalue()


def test_text_has_file_segments_and_objects(metadata: ivshmem.Metadata, primary: eal.Eal) -> None:
    first, second = eal.segments()
    zones = {zone.name: zone for zone in eal.memzones()}
    assert dumped(metadata).splitlines() == [
        f"metadata 'vm 0', version 1, epoch {primary.epoch}",
        f"  uuid {metadata.uuid}",
        f"  file {metadata.path}, 1 MiB",
        f"  segment 0: {first.uuid}, 2 MiB of 4 KiB pages, read-write, group 'default', socket -1, "
        f"host address {first.address:#x}",
        f"  segment 1: {second.uuid}, 2 MiB of 4 KiB pages, read-only, group 'seen', socket -1, "
        f"host address {second.address:#x}",
        f"  memzone 'alpha': segment 1, offset {zones['alpha'].offset:#x}, 48 bytes, array \"<f4\" (3, 4)",
        f"  memzone 'zeta': segment 0, offset {zones['zeta'].offset:#x}, 1000 bytes",
        f"  ring 'packets': segment 0, offset {zones['RG_packets'].offset:#x}, {zones['RG_packets'].length} bytes",
        f"  mempool 'buffers': segment 0, offset {zones['MP_buffers'].offset:#x}, {zones['MP_buffers'].length} bytes",
    ]


def test_text_of_empty_metadata(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    assert dumped(metadata).splitlines()[2:] == [f"  file {metadata.path}, 1 MiB", "  no objects"]


def test_text_has_one_line_per_object_with_any_name(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    names = ["a,b", "two  blanks", "'", '"', "\\n", "[bold]", "ü", "\u2028", "\u202e"]
    for name in names:
        metadata.add_memzone(eal.memzone_reserve(name, 64))
    lines = [line for line in dumped(metadata).split("\n") if "memzone" in line]
    assert sorted(lines) == sorted(line for name in names for line in lines if line.startswith(f"  memzone {name!r}:"))
    assert len(lines) == len(names)


def test_data_has_file_segments_and_objects(metadata: ivshmem.Metadata, primary: eal.Eal) -> None:
    data = json.loads(json.dumps(table_json(open_metadata(Path(metadata.path)), metadata.path)))
    first, second = eal.segments()
    zones = {zone.name: zone for zone in eal.memzones()}
    identity = {key: data[key] for key in ("name", "uuid", "version", "path", "size", "epoch", "kept")}
    assert identity == {
        "name": "vm 0",
        "uuid": str(metadata.uuid),
        "version": 1,
        "path": metadata.path,
        "size": 1 << 20,
        "epoch": primary.epoch,
        "kept": False,
    }
    assert data["segments"][1] == {
        "uuid": str(second.uuid),
        "size": 2 << 20,
        "page_size": 4096,
        "host_address": second.address,
        "socket_id": -1,
        "group": "seen",
        "epoch": primary.epoch,
        "path": "",
        "readonly": True,
    }
    assert [(e["kind"], e["name"], e["segment"]) for e in data["entries"]] == [
        ("ring", "packets", str(first.uuid)),
        ("mempool", "buffers", str(first.uuid)),
        ("memzone", "zeta", str(first.uuid)),
        ("memzone", "alpha", str(second.uuid)),
    ]
    zeta, alpha = data["entries"][2:]
    assert (zeta["offset"], zeta["length"], zeta["align"]) == (zones["zeta"].offset, 1000, 4096)
    assert (zeta["dtype"], zeta["shape"]) == (None, None)
    assert (json.loads(alpha["dtype"]), alpha["shape"]) == ("<f4", [3, 4])


def test_dump_does_not_change_file(metadata: ivshmem.Metadata) -> None:
    before = Path(metadata.path).read_bytes()
    file = open_metadata(Path(metadata.path))
    out = io.StringIO()
    dump_table(file, metadata.path, out)
    assert out.getvalue() == dumped(metadata)
    assert Path(metadata.path).read_bytes() == before
