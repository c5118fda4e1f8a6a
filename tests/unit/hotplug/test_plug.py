# SPDX-License-Identifier: BSD-3-Clause
"""Plug into and unplug from a running VM, simulated by FakeQemu: devices, rollback, and the record of attached VMs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from tests.fake_qemu import Bridge
from tests.unit.hotplug.metadata import MIB, file_of, ids, metadata_of, zone_in

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))


def test_plug_adds_segments_first_and_metadata_last(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    assert sorted(vm.backends()) == ids(hot)
    adds = [name for command, name in vm.commands if command == "device_add"]
    assert adds[-1] == f"{hot.devices()[-1].id}-dev"
    assert vm.objects[hot.devices()[-1].id]["readonly"] is True
    assert {device.bus for device in vm.devices.values()} == {"ivs-plug"}
    assert sorted(device.slot for device in vm.devices.values()) == [1, 2, 3]


def test_unplug_removes_metadata_first_and_plug_works_again(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    vm.commands.clear()
    hot.unplug(str(vm.path))
    assert vm.backends() == []
    removed = [name for command, name in vm.commands if command == "device_del"]
    assert removed[0] == f"{hot.devices()[-1].id}-dev"
    assert len(removed) == 3
    assert not file_of(hot).leaving
    with pytest.raises(eal.NotFound, match="does not have metadata 'hot'"):
        hot.unplug(vm.path)
    hot.plug(vm.path)
    assert sorted(vm.backends()) == ids(hot)


def test_plug_twice_adds_nothing(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    before = dict(vm.devices)
    hot.plug(vm.path)
    assert vm.devices == before


def test_devices_of_command_line_are_not_plugged_again(vm: Any, hot: ivshmem.Metadata) -> None:
    vm.cold(hot.qemu_args())
    hot.plug(vm.path)
    assert "device_add" not in dict(vm.commands)
    hot.add_memzone(zone_in("later"))
    assert sorted(vm.backends()) == ids(hot)
    hot.unplug(vm.path)
    assert vm.backends() == []


def test_segment_of_two_shares_is_plugged_once(vm: Any, primary: eal.Eal) -> None:
    common, other = zone_in("common"), zone_in("other")
    first, second = ivshmem.metadata_create("first"), ivshmem.metadata_create("second")
    first.add_memzone(common)
    second.add(common, other)
    first.plug(vm.path)
    second.plug(vm.path)
    assert len(vm.backends()) == 4
    # The share that plugged the segment is unplugged: the segment remains until the other share is unplugged too.
    first.unplug(vm.path)
    assert len(vm.backends()) == 3
    assert {first.devices()[0].id, second.devices()[-1].id} < set(vm.backends())
    second.unplug(vm.path)
    assert vm.backends() == []


def test_readonly_segment_is_plugged_again_for_write_access(vm: Any, primary: eal.Eal) -> None:
    zone = zone_in("common")
    reader, writer = ivshmem.metadata_create("reader"), ivshmem.metadata_create("writer")
    reader.add_memzone(zone, readonly=True)
    writer.add_memzone(zone)
    reader.plug(vm.path)
    writer.plug(vm.path)
    assert len(vm.backends()) == 4
    reader.unplug(vm.path)
    assert sorted(vm.backends()) == ids(writer)
    reader.plug(vm.path)
    assert len(vm.backends()) == 3  # a writable device is sufficient for a read-only share
    writer.unplug(vm.path)
    assert len(vm.backends()) == 2  # the segment remains for the reader
    reader.unplug(vm.path)
    assert vm.backends() == []


def test_unplug_keeps_segments_if_other_metadata_is_unreadable(vm: Any, primary: eal.Eal) -> None:
    zone = zone_in("common")
    first, second = ivshmem.metadata_create("first"), ivshmem.metadata_create("second")
    for metadata in (first, second):
        metadata.add_memzone(zone)
        metadata.plug(vm.path)
    second_id = second.devices()[-1].id
    second.close()
    first.unplug(vm.path)
    assert sorted(vm.backends()) == sorted([second_id, first.devices()[0].id])


def test_user_supplied_devices_are_not_removed(vm: Any, hot: ivshmem.Metadata) -> None:
    args = [word.replace("ivs-", "user-") for word in hot.qemu_args()[2:]]
    vm.cold(args)
    hot.plug(vm.path)
    assert [command for command, _ in vm.commands].count("device_add") == 0
    with pytest.raises(eal.NotFound, match="does not have"):
        hot.unplug(vm.path)
    assert len(vm.backends()) == 3


def test_add_plugs_new_segment_before_publishing_it(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    table = hot.table
    seen = []
    plain = vm._device_add

    def device_add(**options: Any) -> None:
        seen.append(hot.table)
        plain(**options)

    vm._device_add = device_add
    hot.add_memzone(zone_in("later"))
    assert seen == [table]
    assert sorted(vm.backends()) == ids(hot)
    hot.add_memzone(eal.memzone_reserve("more", 64, group="later"))  # no new segment
    hot.add(zone_in("one"), zone_in("two"))
    assert len(seen) == 3
    assert sorted(vm.backends()) == ids(hot)


def test_add_plugs_new_segment_into_all_vms_or_none(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    vms = [make("a"), make("b", bridges={"ivs-plug": Bridge(window=64 * MIB)}), make("c")]
    for vm in vms:
        hot.plug(vm.path)
    backends, table = [vm.backends() for vm in vms], hot.table
    large = zone_in("large", 128 * MIB)
    with pytest.raises(eal.NoMemory, match="'ivs-plug' has a window of 64 MiB"):
        hot.add_memzone(large)
    assert [vm.backends() for vm in vms] == backends
    assert hot.table == table
    hot.add_memzone(zone_in("small"))
    assert [sorted(vm.backends()) for vm in vms] == [ids(hot)] * 3


def test_add_to_full_table_unplugs_new_segment(vm: Any, primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("full", capacity=16384)
    metadata.plug(vm.path)
    zones = [eal.memzone_reserve(f"z{n}", 64, group="z") for n in range(80)]
    with pytest.raises(eal.NoMemory, match="create it with a larger capacity"):
        metadata.add(*zones)
    assert vm.backends() == ids(metadata)
    assert metadata.table.entries == ()


def test_add_removes_record_of_ended_vm(vm: Any, hot: ivshmem.Metadata, primary: eal.Eal) -> None:
    hot.plug(vm.path)
    record = primary.directory.path / "vms"
    text = record.read_text()
    ended = subprocess.Popen(["true"])
    ended.wait()
    record.write_text(text.replace(f'"pid": {os.getpid()}', f'"pid": {ended.pid}'))
    vm.__exit__()
    hot.add_memzone(zone_in("later"))
    assert json.loads(record.read_text())[hot.uuid.hex]["vms"] == []


def test_add_with_unreachable_vm_raises_and_changes_nothing(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    table = hot.table
    vm.__exit__()
    zone = zone_in("later")
    with pytest.raises(eal.NotFound, match="no QEMU listens at the QMP socket"):
        hot.add_memzone(zone)
    assert hot.table == table


def test_add_removes_record_of_vm_without_the_share(vm: Any, hot: ivshmem.Metadata, primary: eal.Eal) -> None:
    hot.plug(vm.path)
    vm.devices.clear()
    vm.objects.clear()
    hot.add_memzone(zone_in("later"))
    assert vm.backends() == []
    assert json.loads((primary.directory.path / "vms").read_text())[hot.uuid.hex]["vms"] == []


def test_record_is_removed_with_the_metadata(vm: Any, hot: ivshmem.Metadata, primary: eal.Eal) -> None:
    hot.plug(vm.path)
    record = primary.directory.path / "vms"
    assert list(json.loads(record.read_text())) == [hot.uuid.hex]
    hot.close()
    assert json.loads(record.read_text()) == {}
    # The record of a share that was not closed is dropped with the next change.
    other = metadata_of("other")
    other.plug(vm.path)
    primary.directory.metadata_link("other").unlink()
    third = metadata_of("third")
    third.plug(vm.path)
    assert list(json.loads(record.read_text())) == [third.uuid.hex]


def test_damaged_record_is_ignored(vm: Any, hot: ivshmem.Metadata, primary: eal.Eal) -> None:
    hot.plug(vm.path)
    (primary.directory.path / "vms").write_text('{"')
    hot.add_memzone(zone_in("later"))
    hot.plug(vm.path)
    assert sorted(vm.backends()) == ids(hot)


@pytest.mark.parametrize("by", ["command", "recovery"])
def test_add_plugs_into_vm_that_another_process_attached(
    vm: Any, peer: Callable[..., Any], runtime_dir: Path, by: str
) -> None:
    host = """
        import sys, eal, ivshmem
        eal.init(["--no-pci"], file_prefix=sys.argv[1], no_huge=True, recover=len(sys.argv) > 3)
        hot = ivshmem.metadata_lookup("hot") if len(sys.argv) > 3 else ivshmem.metadata_create("hot")
        hot.add_memzone(eal.memzone_reserve(f"first{len(sys.argv)}", 64, group=f"first{len(sys.argv)}"))
        if len(sys.argv) > 2: hot.plug(sys.argv[2])
        print("ready")
        sys.stdin.readline()
        hot.add_memzone(eal.memzone_reserve(f"second{len(sys.argv)}", 64, group=f"second{len(sys.argv)}"))
        print(len(hot.devices()))
        sys.stdin.read()
    """
    if by == "command":
        running = peer(host)
        running.hear()
        words = [IVSHMEM, "plug", "hot", "--qmp", str(vm.path), "--json"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert [(one["bus"], one["slot"]) for one in json.loads(done.stdout)] == [("ivs-plug", 1), ("ivs-plug", 2)]
    else:
        first = peer(host, vm.path)
        first.hear()
        first.crash()
        running = peer(host, vm.path, "recover")
        running.hear()
    running.say()
    count = int(running.hear())
    assert count == (3 if by == "command" else 4)
    assert len(vm.backends()) == count
    removed = subprocess.run([IVSHMEM, "unplug", "hot", "--qmp", str(vm.path)], capture_output=True, text=True)
    assert removed.returncode == 0, removed.stderr
    assert len(re.findall(r"^/dev/shm/\S+: removed$", removed.stdout, re.MULTILINE)) == count
    assert vm.backends() == []
    running.end()


def test_plug_and_unplug_commands_report_errors(vm: Any, hot: ivshmem.Metadata) -> None:
    for words, status, error in (
        (["plug", "hot"], 2, "Missing option '--qmp'"),
        (["plug", "cold", "--qmp", "x"], 1, "no metadata 'cold' in"),
        (["plug", "hot", "--qmp", "/no/socket"], 1, "no QEMU listens at the QMP socket '/no/socket'"),
        (["unplug", "hot", "--qmp", str(vm.path)], 1, "does not have metadata 'hot'"),
    ):
        done = subprocess.run([IVSHMEM, *words], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert error in done.stderr
