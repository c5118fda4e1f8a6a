# SPDX-License-Identifier: BSD-3-Clause
"""Exposure of zones beyond the metadata: reported, warned of once, rejected for isolated metadata."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

import eal
import ivshmem
from eal.memory.segment import HEADER_SIZE
from ivshmem.cli import cli
from ivshmem.metadata.exposure import Exposed

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ivshmem.ExposureWarning)
        yield


def names(exposure: list[Exposed]) -> list[list[str]]:
    return [[zone.name for zone in segment.zones] for segment in exposure]


def test_other_zones_of_shared_segment_are_exposed(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    assert metadata.exposure() == []
    zone = eal.memzone_reserve("given", 1000)
    ring, pool = eal.ring_create("r", 8), eal.mempool_create("p", 8, 64)
    eal.memzone_reserve("apart", 64, group="apart")
    seen = eal.memzone_reserve("seen", 64, group="seen")
    eal.memzone_reserve("beside", 64, group="seen")
    with pytest.warns(ivshmem.ExposureWarning):
        metadata.add_memzone(zone)
    with pytest.warns(ivshmem.ExposureWarning):
        metadata.add_memzone(seen, readonly=True)
    first, second = metadata.exposure()
    assert [(z.name, z.offset, z.length) for z in first.zones] == [
        (z.name, z.offset, z.length) for z in (ring.memzone, pool.memzone)
    ]
    assert [z.name for z in second.zones] == ["beside"]
    assert (first.readonly, second.readonly) == (False, True)
    assert (first.group, first.path, first.segment) == ("default", zone.segment.path, zone.segment.uuid)
    assert first.free == 2 * MIB - HEADER_SIZE - 1000 - ring.memzone.length - pool.memzone.length
    assert second.free == 2 * MIB - HEADER_SIZE - 128


def test_add_of_all_objects_exposes_nothing(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add(eal.memzone_reserve("z", 64), eal.ring_create("r", 8), eal.mempool_create("p", 8, 64))
    assert names(metadata.exposure()) == [[]]
    assert [(e.kind.name, e.name) for e in metadata.table.entries] == [
        ("MEMZONE", "z"),
        ("RING", "r"),
        ("MEMPOOL", "p"),
    ]


def test_ring_added_as_memzone_is_not_exposed(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.ring_create("r", 8).memzone)
    assert names(metadata.exposure()) == [[]]


def test_exposure_follows_reserve_and_free(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("a", 64))
    (before,) = metadata.exposure()
    later = eal.memzone_reserve("later", 4096)
    assert names(metadata.exposure()) == [["later"]]
    assert metadata.exposure()[0].free == before.free - 4096
    eal.memzone_free(later)
    assert metadata.exposure() == [before]


# --- warnings -----------------------------------------------------------------------------------------------


def test_warning_once_at_line_of_add(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    zones = [eal.memzone_reserve(f"z{number}", 64) for number in range(4)]
    with pytest.warns(ivshmem.ExposureWarning) as caught:
        metadata.add_memzone(zones[0])
    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message) == (
        "metadata 'vm0': a VM that gets 'z0' gets its complete segment, and can read and write 'z1', 'z2', 'z3', "
        "not in the metadata: reserve private zones in another group, or add all by one add()"
    )
    metadata.add_memzone(zones[1])  # no second warning of the same zones
    new = eal.ring_create("new", 8)
    with pytest.warns(ivshmem.ExposureWarning, match="gets 'z2' .* can read and write 'RG_new', not in"):
        metadata.add_memzone(zones[2])
    metadata.add_ring(new)
    other = ivshmem.metadata_create("vm1")
    with pytest.warns(ivshmem.ExposureWarning, match="'vm1'.* can read 'z1', 'z2', 'z3', 'RG_new', not in"):
        other.add_memzone(zones[0], readonly=True)


def test_warning_counts_zones_beyond_the_first_five(primary: eal.Eal) -> None:
    zones = [eal.memzone_reserve(f"z{number}", 64) for number in range(9)]
    with pytest.warns(ivshmem.ExposureWarning, match="'z5' and 3 more, not in the metadata"):
        ivshmem.metadata_create("vm0").add_memzone(zones[0])


def test_warning_as_error_changes_nothing(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    zone = eal.memzone_reserve("z", 64)
    eal.memzone_reserve("other", 64)
    with pytest.raises(ivshmem.ExposureWarning):
        metadata.add_memzone(zone)
    assert metadata.table.entries == ()


def test_isolated_metadata_raises_invalid(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.isolated = True
    zone, other = eal.memzone_reserve("z", 64), eal.memzone_reserve("other", 64)
    for _ in range(2):  # every time, unlike the warning
        with pytest.raises(eal.Invalid, match="can read and write 'other'"):
            metadata.add_memzone(zone)
    assert metadata.table.segments == ()
    metadata.add(zone, other)
    assert names(metadata.exposure()) == [[]]


def test_add_of_several_objects_is_atomic(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    zone, ring = eal.memzone_reserve("z", 64), eal.ring_create("r", 8)
    for objects, error in (((zone, ring, zone), eal.Exists), ((zone, "ring"), eal.Invalid), ((zone, None), TypeError)):
        with pytest.raises(error):
            metadata.add(*objects)
        assert metadata.table.entries == ()
    metadata.add()
    metadata.add(zone, ring, readonly=True)
    assert [record.readonly for record in metadata.table.segments] == [True]


# --- the command --------------------------------------------------------------------------------------------


def run_exposure(*words: str) -> str:
    result = CliRunner().invoke(cli, ["exposure", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_command_lists_exposed_zones(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    zone = eal.memzone_reserve("given", 1000)
    metadata.add_memzone(zone)
    assert run_exposure("vm0").splitlines()[-1] == "no other zone is exposed"
    ring = eal.ring_create("r", 8)
    text = run_exposure("vm0", "--file-prefix", primary.file_prefix)
    assert f"a VM can read and write 'RG_r': {ring.memzone.length} bytes at {ring.memzone.offset:#x}" in text
    assert text.splitlines()[-1] == "1 zones outside the metadata are exposed"
    assert json.loads(run_exposure("vm0", "--json")) == [
        {
            "segment": str(zone.segment.uuid),
            "path": zone.segment.path,
            "group": "default",
            "size": 2 * MIB,
            "readonly": False,
            "zones": [{"name": "RG_r", "kind": "ring", "offset": ring.memzone.offset, "length": ring.memzone.length}],
            "free": 2 * MIB - HEADER_SIZE - 1000 - ring.memzone.length,
        }
    ]
