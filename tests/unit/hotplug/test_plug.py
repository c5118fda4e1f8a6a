# SPDX-License-Identifier: BSD-3-Clause
"""Plugging into a running VM, against a stand-in for QEMU: what goes where, what is taken back, and every error."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal._native import lib
from eal.linux import process
from eal.memory.participant import share_word
from eal.memory.segment import Segment
from eal.metadata.table_file import TableFile
from ivshmem.hotplug import qmp
from ivshmem.hotplug import unplug_handshake as leaving
from tests.fake_qemu import Bridge, FakeQemu

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))
MIB = 1 << 20


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`make(**how)` gives a running stand-in; see FakeQemu."""
    running = []

    def start(name: str = "q", **how: Any) -> Any:
        started = FakeQemu(tmp_path / name, **how)
        running.append(started)
        return started.__enter__()

    yield start
    for one in running:
        one.__exit__()


@pytest.fixture
def vm(make: Callable[..., Any]) -> Any:
    return make()


def metadata_of(name: str, *sizes: int, readonly: bool = False) -> ivshmem.Metadata:
    """A metadata with a segment of each size, each with one zone."""
    made = ivshmem.metadata_create(name, capacity=MIB)
    for number, size in enumerate(sizes):
        made.add_memzone(zone_in(f"{name}-{number}", size), readonly=readonly)
    return made


def zone_in(group: str, size: int = 2 * MIB) -> eal.Memzone:
    eal.segment_create(size, group=group)
    return eal.memzone_reserve(f"zone {group}", 64, group=group)


@pytest.fixture
def hot(primary: eal.Eal) -> ivshmem.Metadata:
    return metadata_of("hot", 2 * MIB, 16 * MIB)


def file_of(metadata: ivshmem.Metadata) -> TableFile:
    assert metadata._file is not None
    return metadata._file


def ids(*metadata: ivshmem.Metadata) -> list[str]:
    return sorted({device.uuid: device.id for one in metadata for device in one.devices()}.values())


# --- in and out ---------------------------------------------------------------------------------------------


def test_segments_come_first_and_the_metadata_last(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    assert sorted(vm.given()) == ids(hot)
    adds = [name for command, name in vm.commands if command == "device_add"]
    assert adds[-1] == f"{hot.devices()[-1].id}-dev"
    assert vm.objects[hot.devices()[-1].id]["readonly"] is True
    assert {device.bus for device in vm.devices.values()} == {"ivs-plug"}
    assert sorted(device.slot for device in vm.devices.values()) == [1, 2, 3]


def test_out_again(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    vm.commands.clear()
    hot.unplug(str(vm.path))
    assert vm.given() == []
    removed = [name for command, name in vm.commands if command == "device_del"]
    assert removed[0] == f"{hot.devices()[-1].id}-dev"
    assert len(removed) == 3
    assert not leaving.is_leaving(file_of(hot))
    with pytest.raises(eal.NotFound, match="does not have metadata 'hot'"):
        hot.unplug(vm.path)
    hot.plug(vm.path)
    assert sorted(vm.given()) == ids(hot)


def test_plugging_twice_does_nothing_more(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    before = dict(vm.devices)
    hot.plug(vm.path)
    assert vm.devices == before


def test_what_the_command_line_gave_is_not_plugged_again(vm: Any, hot: ivshmem.Metadata) -> None:
    vm.cold(hot.qemu_args())
    hot.plug(vm.path)
    assert "device_add" not in dict(vm.commands)
    hot.add_memzone(zone_in("later"))
    assert sorted(vm.given()) == ids(hot)
    hot.unplug(vm.path)
    assert vm.given() == []


def test_a_segment_of_two_metadata_is_there_once(vm: Any, primary: eal.Eal) -> None:
    common, other = zone_in("common"), zone_in("other")
    first, second = ivshmem.metadata_create("first"), ivshmem.metadata_create("second")
    first.add_memzone(common)
    second.add(common, other)
    first.plug(vm.path)
    second.plug(vm.path)
    assert len(vm.given()) == 4
    # The one that brought it goes, the segment stays for the other one; with that it goes too.
    first.unplug(vm.path)
    assert len(vm.given()) == 3
    assert {first.devices()[0].id, second.devices()[-1].id} < set(vm.given())
    second.unplug(vm.path)
    assert vm.given() == []


def test_a_segment_that_is_there_to_be_read_is_plugged_again_to_be_written(vm: Any, primary: eal.Eal) -> None:
    zone = zone_in("common")
    reader, writer = ivshmem.metadata_create("reader"), ivshmem.metadata_create("writer")
    reader.add_memzone(zone, readonly=True)
    writer.add_memzone(zone)
    reader.plug(vm.path)
    writer.plug(vm.path)
    assert len(vm.given()) == 4
    reader.unplug(vm.path)
    assert sorted(vm.given()) == ids(writer)
    reader.plug(vm.path)
    assert len(vm.given()) == 3  # what may be written may be read
    writer.unplug(vm.path)
    assert len(vm.given()) == 2  # and stays for the reader
    reader.unplug(vm.path)
    assert vm.given() == []


def test_segments_stay_where_nobody_knows_who_needs_them(vm: Any, primary: eal.Eal) -> None:
    zone = zone_in("common")
    first, second = ivshmem.metadata_create("first"), ivshmem.metadata_create("second")
    for metadata in (first, second):
        metadata.add_memzone(zone)
        metadata.plug(vm.path)
    second_id = second.devices()[-1].id
    second.close()
    first.unplug(vm.path)
    assert sorted(vm.given()) == sorted([second_id, first.devices()[0].id])


def test_devices_of_others_are_left_alone(vm: Any, hot: ivshmem.Metadata) -> None:
    args = [word.replace("ivs-", "user-") for word in hot.qemu_args()[2:]]
    vm.cold(args)
    hot.plug(vm.path)
    assert [command for command, _ in vm.commands].count("device_add") == 0
    with pytest.raises(eal.NotFound, match="does not have"):
        hot.unplug(vm.path)
    assert len(vm.given()) == 3


# --- more is added ------------------------------------------------------------------------------------------


def test_a_new_segment_is_plugged_before_it_is_published(vm: Any, hot: ivshmem.Metadata) -> None:
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
    assert sorted(vm.given()) == ids(hot)
    hot.add_memzone(eal.memzone_reserve("more", 64, group="later"))  # no new segment
    hot.add(zone_in("one"), zone_in("two"))
    assert len(seen) == 3
    assert sorted(vm.given()) == ids(hot)


def test_a_new_segment_goes_to_every_vm_or_to_none(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    vms = [make("a"), make("b", bridges={"ivs-plug": Bridge(window=64 * MIB)}), make("c")]
    for vm in vms:
        hot.plug(vm.path)
    given, table = [vm.given() for vm in vms], hot.table
    large = zone_in("large", 128 * MIB)
    with pytest.raises(eal.NoMemory, match="'ivs-plug' has a window of 64 MiB"):
        hot.add_memzone(large)
    assert [vm.given() for vm in vms] == given
    assert hot.table == table
    hot.add_memzone(zone_in("small"))
    assert [sorted(vm.given()) for vm in vms] == [ids(hot)] * 3


def test_what_was_plugged_is_taken_back_where_the_table_is_full(vm: Any, primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("full", capacity=16384)
    metadata.plug(vm.path)
    zones = [eal.memzone_reserve(f"z{n}", 64, group="z") for n in range(80)]
    with pytest.raises(eal.NoMemory, match="create it with a larger capacity"):
        metadata.add(*zones)
    assert vm.given() == ids(metadata)
    assert metadata.table.entries == ()


def test_a_vm_that_is_gone_is_forgotten(vm: Any, hot: ivshmem.Metadata, primary: eal.Eal) -> None:
    hot.plug(vm.path)
    record = primary.directory.path / "vms"
    text = record.read_text()
    ended = subprocess.Popen(["true"])
    ended.wait()
    record.write_text(text.replace(f'"pid": {os.getpid()}', f'"pid": {ended.pid}'))
    vm.__exit__()
    hot.add_memzone(zone_in("later"))
    assert json.loads(record.read_text())[hot.uuid.hex]["vms"] == []


def test_a_vm_that_lives_and_is_not_reached_keeps_all_as_it_was(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    table = hot.table
    vm.__exit__()
    zone = zone_in("later")
    with pytest.raises(eal.NotFound, match="no QEMU answers at the QMP socket"):
        hot.add_memzone(zone)
    assert hot.table == table


def test_a_vm_that_was_booted_anew_without_it_is_forgotten(vm: Any, hot: ivshmem.Metadata, primary: eal.Eal) -> None:
    hot.plug(vm.path)
    vm.devices.clear()
    vm.objects.clear()
    hot.add_memzone(zone_in("later"))
    assert vm.given() == []
    assert json.loads((primary.directory.path / "vms").read_text())[hot.uuid.hex]["vms"] == []


def test_the_record_goes_with_the_metadata(vm: Any, hot: ivshmem.Metadata, primary: eal.Eal) -> None:
    hot.plug(vm.path)
    record = primary.directory.path / "vms"
    assert list(json.loads(record.read_text())) == [hot.uuid.hex]
    hot.close()
    assert json.loads(record.read_text()) == {}
    # of one that went without closing, with the next change
    other = metadata_of("other")
    other.plug(vm.path)
    primary.directory.metadata_link("other").unlink()
    third = metadata_of("third")
    third.plug(vm.path)
    assert list(json.loads(record.read_text())) == [third.uuid.hex]


def test_a_damaged_record_is_no_more_than_forgotten(vm: Any, hot: ivshmem.Metadata, primary: eal.Eal) -> None:
    hot.plug(vm.path)
    (primary.directory.path / "vms").write_text('{"')
    hot.add_memzone(zone_in("later"))
    hot.plug(vm.path)
    assert sorted(vm.given()) == ids(hot)


@pytest.mark.parametrize("by", ["command", "recovery"])
def test_add_plugs_where_another_process_has_plugged(
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
    assert len(vm.given()) == count
    removed = subprocess.run([IVSHMEM, "unplug", "hot", "--qmp", str(vm.path)], capture_output=True, text=True)
    assert removed.returncode == 0, removed.stderr
    assert len(re.findall(r"^/dev/shm/\S+: removed$", removed.stdout, re.MULTILINE)) == count
    assert vm.given() == []
    running.end()


# --- no room ------------------------------------------------------------------------------------------------


def test_a_window_that_is_too_small(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    """Refused before the VM is touched, with the numbers and the remedy."""
    vm = make(bridges={"ivs-plug": Bridge(window=16 * MIB), "rp": Bridge("pcie-root-port", 2 * MIB)})
    hot.add_memzone(zone_in("larger", 32 * MIB))
    with pytest.raises(eal.NoMemory) as caught:
        hot.plug(vm.path)
    text = str(caught.value)
    assert f"{hot.devices()[2].path} (32 MiB of 51 MiB in 4 devices)" in text
    assert "bridge 'ivs-plug' has a window of 16 MiB, of which 16 MiB are free in one piece" in text
    assert "bridge 'rp' has a window of 2 MiB" in text
    assert 'ivshmem.qemu_args(..., plug="256M")' in text
    assert not {"object-add", "device_add"} & set(dict(vm.commands))


def test_no_slot_is_left(make: Callable[..., Any], primary: eal.Eal) -> None:
    vm = make()
    metadata = metadata_of("many", *[2 * MIB] * 31)
    with pytest.raises(eal.NoMemory, match="'ivs-plug' has no slot free"):
        metadata.plug(vm.path)
    assert vm.given() == []


def test_several_buses_are_used(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    ports = {f"rp{number}": Bridge("pcie-root-port", (number + 1) * 16 * MIB) for number in range(2)}
    vm = make(bridges=ports | {"own": Bridge("pci-bridge", 2 * MIB)})
    hot.plug(vm.path)
    assert sorted(vm.given()) == ids(hot)
    assert sorted((d.bus, d.slot) for d in vm.devices.values()) == [("own", 1), ("rp0", 0), ("rp1", 0)]


def test_no_bridge_at_all(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    with pytest.raises(eal.NoMemory, match="there is no bridge or port that takes plugged devices; boot the VM with"):
        hot.plug(make(bridges={"video": Bridge("i82801b11-bridge")}).path)


def test_a_bus_that_refuses_is_passed_over(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    vm = make(bridges={"ivs-plug": Bridge(window=2 * MIB), "one": Bridge(hotplug=False), "two": Bridge()})
    hot.plug(vm.path)
    assert sorted(vm.given()) == ids(hot)
    assert "one" not in {device.bus for device in vm.devices.values()}


def test_every_bus_refuses(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    vm = make(bridges={"ivs-plug": Bridge(hotplug=False)})
    with pytest.raises(eal.NoMemory, match=r"'ivs-plug' is refused by QEMU .*does not support hotplugging"):
        hot.plug(vm.path)
    assert vm.given() == []


def test_the_guest_finds_no_room(vm: Any, hot: ivshmem.Metadata) -> None:
    """QEMU says that all is well; what the guest made of it is seen by the BAR."""
    vm.lacks_room = {f"{hot.devices()[1].id}-dev"}
    with pytest.raises(eal.NoMemory, match="'ivs-plug' has a window that is too small: the guest found no room there"):
        hot.plug(vm.path)
    assert vm.given() == []
    vm.lacks_room = set()
    hot.plug(vm.path)


# --- who does not answer, and who is gone -------------------------------------------------------------------


def test_a_guest_that_does_not_answer(vm: Any, hot: ivshmem.Metadata) -> None:
    vm.silent = {f"{hot.devices()[1].id}-dev"}
    with pytest.raises(eal.Stalled, match=r"did not answer for 0.3 s.*not all could be taken back: .* still has"):
        hot.plug(vm.path, timeout=0.3)
    assert vm.given() == [hot.devices()[1].id]  # what QEMU cannot take back; the message says so
    vm.silent = set()
    hot.plug(vm.path)
    assert sorted(vm.given()) == ids(hot)


def test_a_backend_that_was_left_over_is_replaced(vm: Any, hot: ivshmem.Metadata) -> None:
    """After an unplug that was given up its guest has let the device go: QEMU deletes that, and not its memory."""
    vm.objects[hot.devices()[0].id] = {"mem-path": "/old", "readonly": True, "size": 1}
    hot.plug(vm.path)
    assert vm.objects[hot.devices()[0].id]["mem-path"] == hot.devices()[0].path


def test_a_guest_that_does_not_give_devices_up(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    vm.refuses = {"*"}
    with pytest.raises(eal.InUse, match=r"its guest refuses to give ivs-.*-dev up"):
        hot.unplug(vm.path)
    assert sorted(vm.given()) == ids(hot)
    assert not leaving.is_leaving(file_of(hot))
    vm.refuses, vm.silent = set(), {"*"}
    with pytest.raises(eal.Stalled, match=r"did not answer for 0.1 s, so it still has ivs-"):
        hot.unplug(vm.path, timeout=0.1)
    assert not leaving.is_leaving(file_of(hot))
    vm.silent, vm.busy = set(), 3  # and QEMU lets go of the memory later than of the device
    hot.unplug(vm.path)
    assert vm.given() == []


def test_a_vm_that_is_paused(vm: Any, hot: ivshmem.Metadata) -> None:
    vm.running = False
    with pytest.raises(eal.InUse, match=r"does not run .it is paused.: continue it first"):
        hot.plug(vm.path)
    vm.running = True
    hot.plug(vm.path)
    vm.running = False
    with pytest.raises(eal.InUse, match="continue it first"):
        hot.unplug(vm.path)
    table = hot.table
    with pytest.raises(eal.InUse, match="continue it first"):
        hot.add_memzone(zone_in("later"))
    assert hot.table == table


def test_a_vm_that_still_boots_is_waited_for(vm: Any, hot: ivshmem.Metadata) -> None:
    vm.booting = 3
    hot.plug(vm.path)
    assert len(vm.given()) == 3
    hot.unplug(vm.path)
    vm.booting = 10**6
    with pytest.raises(eal.Stalled, match="has not set up its PCI bridges yet"):
        hot.plug(vm.path, timeout=0.1)


@pytest.mark.parametrize("command", ["qom-list", "query-pci", "object-add", "device_add"])
def test_qemu_ends_while_it_is_plugged(
    make: Callable[..., Any], hot: ivshmem.Metadata, primary: eal.Eal, command: str
) -> None:
    vm = make(dies_at=command)
    with pytest.raises(eal.NotFound, match="it ended"):
        hot.plug(vm.path)
    record = primary.directory.path / "vms"
    assert not record.exists() or json.loads(record.read_text())[hot.uuid.hex]["vms"] == []
    hot.add_memzone(zone_in("later"))


def test_qemu_ends_while_its_event_is_waited_for(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    vm.silent, vm.dies_at = {"*"}, "query-status"
    vm._query_status = lambda: {"running": True}
    began = time.monotonic()
    with pytest.raises(eal.NotFound, match="it ended"):
        hot.unplug(vm.path, force=True)
    assert time.monotonic() - began < 3


def test_no_qemu_listens(hot: ivshmem.Metadata, tmp_path: Path) -> None:
    for call in (hot.plug, hot.unplug):
        with pytest.raises(eal.NotFound, match="no QEMU answers at the QMP socket"):
            call(tmp_path / "nobody")


def test_another_client_holds_the_socket(vm: Any, hot: ivshmem.Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "TIMEOUT", 0.2)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(vm.path))
        for call in (hot.plug, hot.unplug):
            with pytest.raises(eal.Stalled, match="another client may hold the socket"):
                call(vm.path)
    monkeypatch.undo()
    hot.plug(vm.path)


def test_a_file_that_is_gone_is_not_plugged(vm: Any, hot: ivshmem.Metadata) -> None:
    os.unlink(hot.devices()[0].path)
    with pytest.raises(eal.NotFound, match="is gone: was it removed by hand"):
        hot.plug(vm.path)
    assert vm.commands == []


def test_of_a_closed_metadata(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.close()
    for call in (hot.plug, hot.unplug):
        with pytest.raises(eal.Closed):
            call(vm.path)


# --- guards -------------------------------------------------------------------------------------------------


class Guard:
    """A guest process of another machine that has mapped a share: it beats, and answers if it is told to."""

    def __init__(self, metadata: ivshmem.Metadata, segment: Segment, *, answers: bool, owner: int = 0) -> None:
        self._base = segment.mapping.pointer()
        self._owner = owner or (0x1234_5678 << 32 | threading.get_native_id())
        self.slot = lib.ivs_participant_claim(self._base, self._owner, 77 << 40 | 1)
        lib.ivs_participant_guard(self._base, self.slot, self._owner, share_word(metadata.uuid))
        self._file, self.answers, self.beats, self.heard = file_of(metadata), answers, True, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        while not self._over.wait(0.02):
            if self.beats:
                lib.ivs_participant_beat(self._base, self.slot, self._owner)
            if number := lib.ivs_table_leaving(self._file.mapping.pointer()):
                self.heard = number
                if self.answers:
                    lib.ivs_participant_acknowledge(self._base, self.slot, self._owner, number)

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        lib.ivs_participant_release(self._base, self.slot, self._owner)


@pytest.fixture
def guard(hot: ivshmem.Metadata) -> Iterator[Callable[..., Guard]]:
    started = []

    def start(**how: Any) -> Guard:
        segment = next(one for one in eal.segments() if one.uuid == hot.devices()[0].uuid)
        started.append(Guard(hot, segment, **how))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_every_guard_is_asked(vm: Any, hot: ivshmem.Metadata, guard: Callable[..., Guard]) -> None:
    hot.plug(vm.path)
    guards = [guard(answers=True), guard(answers=True, owner=0x9876 << 32 | 5)]
    hot.unplug(vm.path)
    first = {one.heard for one in guards}
    assert len(first) == 1
    assert vm.given() == []
    hot.plug(vm.path)
    hot.unplug(vm.path)
    assert {one.heard for one in guards} == {first.pop() + 1}


def test_one_that_does_not_let_go(vm: Any, hot: ivshmem.Metadata, guard: Callable[..., Guard]) -> None:
    hot.plug(vm.path)
    guard(answers=True)
    stubborn = guard(answers=False, owner=0x9876_5432 << 32 | 5)
    with pytest.raises(eal.Stalled) as caught:
        hot.unplug(vm.path, timeout=0.3)
    guest = f"machine 98765432 thread 5 of process 77 (slot {stubborn.slot})"
    assert f"'hot' was not let go of within 0.3 s by {guest}" in str(caught.value)
    assert sorted(vm.given()) == ids(hot)
    assert not leaving.is_leaving(file_of(hot))
    hot.unplug(vm.path, timeout=0.3, force=True)
    assert vm.given() == []


def test_one_that_is_dead_or_silent_is_not_waited_for(
    vm: Any, hot: ivshmem.Metadata, guard: Callable[..., Guard]
) -> None:
    hot.plug(vm.path)
    guard(answers=False, owner=process.machine_id() << 32 | 0x3F_FFFF)
    began = time.monotonic()
    hot.unplug(vm.path)
    assert time.monotonic() - began < 1
    hot.plug(vm.path)
    guard(answers=False).beats = False
    began = time.monotonic()
    hot.unplug(vm.path)
    assert 1.9 < time.monotonic() - began < 4
    assert vm.given() == []


def test_guards_of_other_metadata_are_not_asked(vm: Any, primary: eal.Eal, hot: ivshmem.Metadata) -> None:
    other = metadata_of("other")
    other.add_memzone(eal.memzone_lookup("zone hot-0"))
    segment = next(one for one in eal.segments() if one.uuid == hot.devices()[0].uuid)
    one = Guard(other, segment, answers=False)
    try:
        hot.plug(vm.path)
        hot.unplug(vm.path, timeout=0.2)
    finally:
        one.end()


def test_where_nobody_can_answer_there_is_a_fixed_time(vm: Any, primary: eal.Eal) -> None:
    metadata = metadata_of("seen", 2 * MIB, readonly=True)
    metadata.plug(vm.path)
    began = time.monotonic()
    metadata.unplug(vm.path)
    assert 1 <= time.monotonic() - began < 2


def test_an_announcement_of_somebody_who_was_killed_is_taken_back(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    leaving.set_leaving(file_of(hot), 5)
    hot.plug(vm.path)
    assert not leaving.is_leaving(file_of(hot))


# --- the commands -------------------------------------------------------------------------------------------


def test_the_commands_say_what_is_wrong(vm: Any, hot: ivshmem.Metadata) -> None:
    for words, status, error in (
        (["plug", "hot"], 2, "Missing option '--qmp'"),
        (["plug", "cold", "--qmp", "x"], 1, "there is no metadata 'cold'"),
        (["plug", "hot", "--qmp", "/no/socket"], 1, "no QEMU answers at the QMP socket '/no/socket'"),
        (["unplug", "hot", "--qmp", str(vm.path)], 1, "does not have metadata 'hot'"),
    ):
        done = subprocess.run([IVSHMEM, *words], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert error in done.stderr
