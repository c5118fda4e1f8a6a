# SPDX-License-Identifier: BSD-3-Clause
"""Probing: the result of eal.init in a guest with valid and invalid devices."""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eal
from eal.memory import hugepages
from eal.memory.memzone import Memzone
from eal.metadata.records import Table
from eal.metadata.table_file import METADATA_MAGIC
from tests.unit.probe.static_lab import MIB, Guest, StaticLab, good, one_zone, ring, zone


@pytest.fixture
def lab(tmp_path: Path) -> StaticLab:
    (tmp_path / "sys").mkdir()
    return StaticLab(tmp_path)


@pytest.fixture
def guest(lab: StaticLab, runtime_dir: Path, prefix: str) -> Guest:
    """`guest()` starts this process's Eal as the guest of the lab's bus."""
    return lambda: eal.init(file_prefix=prefix, no_huge=True, sysfs_root=lab.folder / "sys", stall_timeout=0.2)


# --- a share ------------------------------------------------------------------------------------------------


def test_guest_finds_every_object(lab: StaticLab, guest: Guest) -> None:
    address, segment = good(lab)
    Memzone(zone(segment, "x", length=128), segment).array("<f4", (4, 8))[:] = np.arange(32).reshape(4, 8)
    with guest() as made:
        assert made.rejections == []
        (share,) = made.shares
        assert (share.name, share.address) == ("good", address)
        assert [z.name for z in made.memzones()] == ["MP_good pool", "RG_good ring", "good image"]
        array = eal.memzone_lookup("good image").array()
        assert array.tolist() == np.arange(32).reshape(4, 8).tolist()
        array[0, 0] = 99
        found = eal.ring_lookup("good ring")
        assert found.enqueue(5)
        assert eal.mempool_lookup("good pool").get() is not None
        assert [r.name for r in made.rings()] == ["good ring"]
        assert [p.name for p in made.mempools()] == ["good pool"]
        (mapped,) = made.segments()
        assert (mapped.uuid, mapped.size, mapped.group) == (segment.uuid, MIB, "good")
        assert mapped.host_address == segment.address
        assert "resource2" in mapped.path
    assert Memzone(zone(segment, "x", length=128), segment).array("<f4")[0] == 99


def test_segment_is_mapped_at_the_hosts_address_if_free(lab: StaticLab, guest: Guest) -> None:
    _, segment = good(lab)
    with guest():  # the host is this process, too, so its address is in use
        assert eal.memzone_lookup("good image").relocated
        assert eal.memzone_lookup("good image").host_address == segment.address + 4096
    wanted = segment.address
    segment.close()
    del segment
    lab.segments.clear()
    gc.collect()
    with guest():
        assert not eal.memzone_lookup("good image").relocated
        assert eal.memzone_lookup("good image").address == wanted + 4096


def test_socket_id_is_the_devices_node_and_host_socket_id_the_hosts(lab: StaticLab, guest: Guest) -> None:
    segment = lab.segment(socket_id=0)
    table = Table((replace(segment.record, path=""),), (zone(segment, "z"),))
    lab.device(lab.metadata("vm", table))
    lab.device(Path(segment.path), numa_node=3)
    with guest():
        found = eal.memzone_lookup("z")
        assert (found.socket_id, found.host_socket_id) == (3, 0)


def test_free_or_create_of_host_objects_raises(lab: StaticLab, guest: Guest) -> None:
    good(lab)
    with guest() as made:
        frees: list[tuple[Callable[[Any], None], object]] = [
            (made.memzone_free, made.memzone_lookup("good image")),
            (made.ring_free, made.ring_lookup("good ring")),
            (made.mempool_free, made.mempool_lookup("good pool")),
        ]
        for free, found in frees:
            with pytest.raises(eal.Denied, match="belongs to the host"):
                free(found)
        for make in (
            lambda: made.memzone_reserve("good image", 64),
            lambda: made.ring_create("good ring", 8),
            lambda: made.mempool_create("good pool", 8, 8),
        ):
            with pytest.raises(eal.Exists, match="good"):
                make()
        assert made.ring_create("good ring", 16, exist_ok=True) is made.ring_lookup("good ring")
        assert made.memzone_reserve("good image", 128, exist_ok=True) is made.memzone_lookup("good image")
        with pytest.raises(eal.Exists, match="another"):
            made.mempool_create("good pool", 63, 32, cache_size=8, exist_ok=True)
        assert made.ring_lookup("good ring").enqueue(1)


def test_guest_heap_is_separate_from_the_share(lab: StaticLab, guest: Guest) -> None:
    good(lab)
    with guest() as made:
        own = made.memzone_reserve("own", 64)
        assert own.segment.group == "default"
        assert [z.name for z in made.memzones()] == ["MP_good pool", "RG_good ring", "good image", "own"]
        assert len(made.segments()) == 2


def test_views_stay_valid_after_close(lab: StaticLab, guest: Guest) -> None:
    good(lab)
    with guest() as made:
        view = made.memzone_lookup("good image").buf
        found = made.ring_lookup("good ring")
    view[0] = 1
    assert bytes(view[:2]) == b"\x01\x00"
    with pytest.raises(eal.Closed):
        found.enqueue(1)


# --- read-only ----------------------------------------------------------------------------------------------


def test_read_only_share_is_readable_and_raises_denied(lab: StaticLab, guest: Guest) -> None:
    _, segment = good(lab, readonly=True)
    Memzone(ring(segment, "good ring", 16384), segment).buf[384] = 0
    before = Path(segment.path).read_bytes()
    with guest() as made:
        image = made.memzone_lookup("good image")
        assert image.readonly
        assert image.buf.readonly
        assert not image.array().flags.writeable
        with pytest.raises(TypeError):
            image.buf[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            image.array()[0] = 1
        found = made.ring_lookup("good ring")
        assert len(found) == 0
        values = np.zeros(2, np.uint64)
        for call in (
            *(lambda: found.enqueue(1), found.dequeue, lambda: found.enqueue_bulk(values), found.reset),
            *(lambda: found.dequeue_burst(values), lambda: found.burst(2).enqueue(1), found.burst(2).dequeue),
        ):
            with pytest.raises(eal.Denied, match="'good ring': the share is read-only"):
                call()
        objects = made.mempool_lookup("good pool")
        assert objects.available == 64
        assert not objects.array.flags.writeable
        indices = np.zeros(2, np.uint32)
        for call in (
            *(objects.get, lambda: objects.put(0)),
            *(lambda: objects.get_bulk(indices), lambda: objects.put_bulk(indices)),
        ):
            with pytest.raises(eal.Denied, match="'good pool': the share is read-only"):
                call()
    assert Path(segment.path).read_bytes() == before


# --- unchanged devices --------------------------------------------------------------------------------------


def test_foreign_device_keeps_its_state(lab: StaticLab, guest: Guest) -> None:
    noise = lab.folder / "noise"
    noise.write_bytes(bytes(np.random.default_rng(7).integers(0, 256, MIB, np.uint8)))
    small, empty = lab.folder / "small", lab.folder / "empty"
    small.write_bytes(b"x" * 100)
    empty.write_bytes(bytes(MIB))
    foreign = [lab.device(path) for path in (noise, small, empty)]
    running = lab.device(noise, enable="1")
    address, _ = good(lab)
    before = {path: path.read_bytes() for path in (noise, small, empty)}
    with guest() as made:
        assert made.findings.foreign == [*foreign, running]
        assert [share.address for share in made.shares] == [address]
        assert made.rejections == []
    assert {path: path.read_bytes() for path in before} == before
    assert [lab.enabled(a) for a in foreign] == ["0"] * 3
    assert lab.enabled(running) == "1"
    assert lab.enabled(address) == "1"


def test_other_pci_device_is_not_touched(lab: StaticLab, guest: Guest) -> None:
    address = lab.device(None, vendor="0x8086", device="0x100e", enable="0")
    folder = lab.folder / "sys/bus/pci/devices" / address
    (folder / "resource2").write_bytes(struct.pack("<Q", METADATA_MAGIC) + bytes(8192))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with guest() as made:
        assert (made.shares, made.rejections, made.findings.foreign) == ([], [], [])
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_segment_without_metadata_file_adds_no_object(lab: StaticLab, guest: Guest) -> None:
    lab.device(Path(lab.segment().path))
    with guest() as made:
        assert (made.shares, made.rejections, made.memzones(), made.segments()) == ([], [], [], [])


# --- several metadata files ---------------------------------------------------------------------------------


def test_object_listed_twice_is_one_object(lab: StaticLab, guest: Guest) -> None:
    segment = lab.segment()
    shared = ring(segment, "shared", 8192)
    record = replace(segment.record, path="")
    lab.device(lab.metadata("one", Table((record,), (zone(segment, "a"), shared))))
    lab.device(lab.metadata("two", Table((record,), (shared, replace(zone(segment, "b"), offset=65536)))))
    lab.device(Path(segment.path))
    with guest() as made:
        assert made.rejections == []
        assert [share.name for share in made.shares] == ["one", "two"]
        assert [z.name for z in made.memzones()] == ["RG_shared", "a", "b"]
        assert made.shares[0].segments == made.shares[1].segments
        assert len(made.segments()) == 1
        assert made.memzone_lookup("a").segment is made.memzone_lookup("b").segment


def test_two_metadata_files_without_common_segment_are_both_used(lab: StaticLab, guest: Guest) -> None:
    good(lab, "one")
    good(lab, "two")
    with guest() as made:
        assert [share.name for share in made.shares] == ["one", "two"]
        assert len(made.segments()) == 2
        assert made.ring_lookup("one ring").enqueue(1)
        assert made.ring_lookup("two ring").empty


def test_different_objects_of_one_name_reject_the_second_file(lab: StaticLab, guest: Guest) -> None:
    tables = []
    for name in ("one", "two"):
        table, segment = one_zone(lab)
        tables.append(lab.device(lab.metadata(name, table)))
        lab.device(Path(segment.path))
    with guest() as made:
        assert [share.name for share in made.shares] == ["one"]
        (found,) = made.rejections
        assert (found.address, found.name) == (tables[1], "two")
        for said in ("'two'", "'one'", tables[0], "memzone 'z'", "rename one"):
            assert said in found.reason
        assert made.memzone_lookup("z").segment.uuid == lab.segments[0].uuid


def test_metadata_file_on_two_devices_is_used_once(lab: StaticLab, guest: Guest) -> None:
    table, segment = one_zone(lab)
    path = lab.metadata("vm0", table)
    first, second = lab.device(path), lab.device(path)
    lab.device(Path(segment.path))
    with guest() as made:
        assert [share.address for share in made.shares] == [first]
        (found,) = made.rejections
        assert (found.address, found.name) == (second, "vm0")
        assert first in found.reason


def test_segment_on_two_devices_is_mapped_once(lab: StaticLab, guest: Guest) -> None:
    table, segment = one_zone(lab)
    lab.device(Path(segment.path))
    lab.device(lab.metadata("vm0", table))
    lab.device(Path(segment.path))
    with guest() as made:
        assert made.rejections == []
        assert len(made.segments()) == 1
        made.memzone_lookup("z").buf[0] = 7
    assert Memzone(zone(segment, "z"), segment).buf[0] == 7


def test_segment_read_only_in_one_file_and_writable_in_another_is_writable(lab: StaticLab, guest: Guest) -> None:
    segment = lab.segment()
    record = replace(segment.record, path="")
    lab.device(lab.metadata("reads", Table((replace(record, readonly=True),), (zone(segment, "a"),))))
    lab.device(lab.metadata("writes", Table((record,), (zone(segment, "b", 16384),))))
    lab.device(Path(segment.path))
    with guest() as made:
        assert made.rejections == []
        made.memzone_lookup("b").buf[0] = 3
        assert len(made.segments()) == 1


def test_name_in_use_by_the_prefix_rejects_the_share(lab: StaticLab, runtime_dir: Path, prefix: str, peer: Any) -> None:
    """A second process of a guest's prefix gets a metadata file that conflicts with objects of the first one."""
    table, segment = one_zone(lab)
    with eal.init(file_prefix=prefix, no_huge=True, sysfs_root=lab.folder / "sys") as made:
        made.memzone_reserve("z", 64)
        address = lab.device(lab.metadata("vm0", table))
        lab.device(Path(segment.path))
        script = """
        import sys, eal
        with eal.init(file_prefix=sys.argv[1], sysfs_root=sys.argv[2], no_huge=True) as made:
            (found,) = made.rejections
            print(made.proc_type, found.address, found.name, eal.memzone_lookup("z").length)
            print(found.reason)
        """
        who, reason = peer(script, lab.folder / "sys").end().splitlines()
        assert who == f"secondary {address} vm0 64"
        assert f"file_prefix '{prefix}'" in reason


def test_failed_start_releases_the_devices(lab: StaticLab, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    good(lab)

    def fail(**_: object) -> None:
        raise eal.NoMemory("none at all")

    with monkeypatch.context() as patch:
        patch.setattr(hugepages, "choose", fail)
        with pytest.raises(eal.NoMemory):
            eal.init(["-m", "2"], file_prefix="x", sysfs_root=lab.folder / "sys")
    gc.collect()
    assert "resource2" not in Path("/proc/self/maps").read_text()
    with guest() as made:
        assert len(made.shares) == 1


def test_no_pci_option_skips_the_scan(lab: StaticLab, runtime_dir: Path, prefix: str) -> None:
    good(lab)
    with eal.init(["--no-pci"], file_prefix=prefix, no_huge=True, sysfs_root=lab.folder / "sys") as made:
        assert (made.shares, made.findings.foreign) == ([], [])
