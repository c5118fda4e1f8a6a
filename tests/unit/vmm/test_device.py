# SPDX-License-Identifier: BSD-3-Clause
"""Devices of metadata files, and of several metadata files together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

import eal
import ivshmem
from eal.memory.segment import read_header
from eal.metadata.lookup import open_metadata
from ivshmem.vmm.device import Device, devices_of, merge


@pytest.fixture
def metadata(primary: eal.Eal) -> ivshmem.Metadata:
    made = ivshmem.metadata_create("vm0")
    made.add_memzone(eal.memzone_reserve("zone", 64))
    made.add_memzone(eal.memzone_reserve("seen", 5 << 20, group="seen", socket_id=0), readonly=True)
    return made


def test_devices_are_segments_in_table_order_then_metadata_file(metadata: ivshmem.Metadata) -> None:
    plain, seen = eal.segments()
    own = metadata.uuid.hex[:12]
    assert metadata.devices() == [
        Device(f"ivs-{own}-{plain.uuid.hex[:12]}", plain.uuid, plain.path, 2 << 20, readonly=False, socket_id=-1),
        Device(f"ivs-{own}-{seen.uuid.hex[:12]}", seen.uuid, seen.path, 8 << 20, readonly=True, socket_id=0),
        Device(f"ivs-{own}", metadata.uuid, metadata.path, 1 << 20, readonly=True, socket_id=-1, is_metadata=True),
    ]


def test_device_files_have_size_and_uuid_of_device(metadata: ivshmem.Metadata) -> None:
    for device in metadata.devices():
        assert Path(device.path).stat().st_size == device.size
        assert device.size & (device.size - 1) == 0
    records = [segment.record for segment in eal.segments()]
    headers = [read_header(segment.mapping, "") for segment in eal.segments()]
    assert [header.uuid for header in headers] == [record.uuid for record in records]
    assert [device.uuid for device in metadata.devices()[:-1]] == [header.uuid for header in headers]
    assert open_metadata(Path(metadata.devices()[-1].path)).info.uuid == metadata.uuid


def test_empty_metadata_has_one_device(primary: eal.Eal) -> None:
    assert [device.is_metadata for device in ivshmem.metadata_create("vm0").devices()] == [True]


def test_segment_missing_in_registry_raises_not_found(metadata: ivshmem.Metadata, primary: eal.Eal) -> None:
    registry = primary.registry_table
    file = open_metadata(Path(metadata.path))
    assert devices_of(file, metadata.path, registry) == metadata.devices()
    lost = registry.segments[1]
    with pytest.raises(eal.NotFound, match=f"'vm0' needs segment {lost.uuid}"):
        devices_of(file, metadata.path, replace(registry, segments=registry.segments[:1]))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_missing_file_raises_not_found(metadata: ivshmem.Metadata, index: int) -> None:
    path = metadata.devices()[index].path
    Path(path).rename(f"{path}.away")
    try:
        with pytest.raises(eal.NotFound, match="does not exist: was it removed by hand") as caught:
            metadata.devices()
        assert path in str(caught.value)
    finally:
        Path(f"{path}.away").rename(path)
    assert len(metadata.devices()) == 3


# --- merge --------------------------------------------------------------------------------------------------


def device(name: str, uuid: int, *, readonly: bool = False) -> Device:
    return Device(name, UUID(int=uuid), f"/dev/shm/{uuid}", 4096, readonly)


def test_merge_keeps_first_device_of_each_uuid_in_order() -> None:
    given = [device("a", 1), device("b", 2), device("c", 1), device("d", 3), device("e", 2)]
    assert merge(given) == [given[0], given[1], given[3]]
    assert merge(iter(given)) == merge(given)
    assert merge([]) == []


@pytest.mark.parametrize(
    ("given", "merged"),
    [([True, True], True), ([False, False], False), ([True, False], False), ([False, True], False), ([True] * 3, True)],
)
def test_merge_is_writable_if_any_device_is(given: list[bool], merged: bool) -> None:
    devices = [device(f"d{number}", 1, readonly=readonly) for number, readonly in enumerate(given)]
    assert merge(devices) == [replace(devices[0], readonly=merged)]


def test_merge_does_not_change_its_argument() -> None:
    given = [device("a", 1, readonly=True), device("b", 1)]
    before = list(given)
    merge(given)
    assert given == before
