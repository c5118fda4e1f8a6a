# SPDX-License-Identifier: BSD-3-Clause
"""Emulated bus: its sysfs tree, and metadata files that are plugged and unplugged under running guests."""

from __future__ import annotations

import itertools
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal.pci.device import scan
from ivshmem.emulate.bus import EmulatedBus

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))
KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary directory of this process."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def file_of(folder: Path, size: int, name: str = "bar") -> Path:
    path = folder / name
    path.write_bytes(bytes(size))
    return path


# --- sysfs tree ---------------------------------------------------------------------------------------------


def test_scan_returns_added_devices(tmp_path: Path) -> None:
    files = [file_of(tmp_path, size, f"bar{size}") for size in (4 * KIB, 2 * MIB, 1 * MIB)]
    with EmulatedBus(files) as bus:
        found = scan(bus.root)
        assert [device.address for device in found] == ["0000:00:02.0", "0000:00:03.0", "0000:00:04.0"]
        assert [device.bar_size for device in found] == [4 * KIB, 2 * MIB, 1 * MIB]
        assert [device.resource.resolve() for device in found] == files
        assert [device.numa_node for device in found] == [-1, -1, -1]
        for device in found:
            device.resource.open("r+b").close()


def test_scan_uses_sysfs_root_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatedBus([file_of(tmp_path, 4 * KIB)]) as bus:
        monkeypatch.setenv("EAL_SYSFS_ROOT", str(bus.root))
        assert [device.path.parent for device in scan()] == [bus.root / "bus/pci/devices"]


def test_removed_address_is_not_reused_by_default(tmp_path: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with EmulatedBus([]) as bus:
        assert scan(bus.root) == []
        addresses = [bus.add(file) for _ in range(3)]
        assert [device.address for device in scan(bus.root)] == addresses
        bus.remove(addresses[1])
        assert [device.address for device in scan(bus.root)] == [addresses[0], addresses[2]]
        assert file.exists()
        fourth = bus.add(file)
        assert fourth not in addresses
        assert [device.address for device in scan(bus.root)] == [addresses[0], addresses[2], fourth]


def test_add_at_freed_address_and_at_occupied_address(tmp_path: Path) -> None:
    first, second = file_of(tmp_path, 4 * KIB, "first"), file_of(tmp_path, 8 * KIB, "second")
    with EmulatedBus([first]) as bus:
        (before,) = scan(bus.root)
        with pytest.raises(eal.Exists, match=before.address):
            bus.add(second, before.address)
        bus.remove(before.address)
        assert bus.add(second, before.address) == before.address
        (after,) = scan(bus.root)
        assert (after.address, after.resource.resolve(), after.bar_size) == (before.address, second, 8 * KIB)
        assert [path.name for path in bus.root.iterdir()] == ["bus"]


def test_added_device_appears_atomically(tmp_path: Path) -> None:
    """A listing of the bus at any time shows all files of a device, or no device."""
    file = file_of(tmp_path, 4 * KIB)
    with EmulatedBus([]) as bus:
        stop = threading.Event()
        faults: list[object] = []

        def poll() -> None:
            while not stop.is_set():
                for name in os.listdir(bus.root / "bus/pci/devices"):
                    found = set(os.listdir(bus.root / "bus/pci/devices" / name))
                    if not {"vendor", "device", "enable", "resource", "resource2"} <= found:
                        faults.append(found)

        reader = threading.Thread(target=poll)
        reader.start()
        for _ in range(200):
            bus.add(file)
        stop.set()
        reader.join()
    assert faults == []


def test_addresses_of_300_devices_are_valid_pci_addresses(tmp_path: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with EmulatedBus([file] * 300) as bus:
        found = [device.address for device in scan(bus.root)]
    assert len(set(found)) == 300
    assert all(re.fullmatch(r"0000:0[0-9]:[01][0-9a-f]\.0", address) for address in found)
    assert found[29:31] == ["0000:00:1f.0", "0000:01:00.0"]


@pytest.mark.parametrize("size", [4 * KIB, 64 * KIB, 2 * MIB, 1 << 34])
def test_attributes_equal_those_of_a_qemu_device(tmp_path: Path, size: int) -> None:
    """Reference: ivshmem-plain of QEMU 7.2, with 13 lines in `resource`, 256 bytes in BAR0, and the memory in BAR2."""
    file = tmp_path / "bar"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    with EmulatedBus([file]) as bus:
        device = bus.root / "bus/pci/devices/0000:00:02.0"
        texts = {path.name: path.read_text() for path in device.iterdir() if path.name != "resource2"}
    assert {name: texts[name] for name in ("vendor", "device", "class", "enable", "numa_node")} == {
        "vendor": "0x1af4\n",
        "device": "0x1110\n",
        "class": "0x050000\n",
        "enable": "0\n",
        "numa_node": "-1\n",
    }
    lines = texts["resource"].splitlines()
    assert len(lines) == 13
    assert all(re.fullmatch("0x[0-9a-f]{16} 0x[0-9a-f]{16} 0x[0-9a-f]{16}", line) for line in lines)
    bars = [tuple(int(word, 16) for word in line.split()) for line in lines]
    assert [number for number, bar in enumerate(bars) if any(bar)] == [0, 2]
    assert bars[0][1] - bars[0][0] + 1 == 256
    start, end, flags = bars[2]
    assert end - start + 1 == size
    assert start % size == 0  # a BAR is aligned to its size
    assert flags & 0x200  # memory
    assert flags & 0x2000  # prefetchable
    assert flags & 0x100000  # 64 bits


def test_bars_do_not_overlap(tmp_path: Path) -> None:
    files = [
        file_of(tmp_path, size, f"bar{n}") for n, size in enumerate([4 * KIB, 2 * MIB, 4 * KIB, MIB, 8 * MIB, 4 * KIB])
    ]
    with EmulatedBus(files) as bus:
        lines = [(device.path / "resource").read_text().splitlines()[2] for device in scan(bus.root)]
    ranges = sorted(tuple(int(word, 16) for word in line.split()[:2]) for line in lines)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))


def test_write_to_bar_changes_the_file(tmp_path: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with EmulatedBus([file]) as bus:
        scan(bus.root)[0].resource.write_bytes(b"hello" + bytes(4 * KIB - 5))
    assert file.read_bytes()[:5] == b"hello"


def test_relative_path_is_resolved_when_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_of(tmp_path, 4 * KIB)
    monkeypatch.chdir(tmp_path)
    with EmulatedBus(["bar"]) as bus:
        monkeypatch.chdir("/")
        assert scan(bus.root)[0].resource.stat().st_size == 4 * KIB


def test_close_removes_the_directory_but_not_the_files(tmp_path: Path, own_tmp: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    bus = EmulatedBus([file])
    assert list(own_tmp.iterdir()) == [bus.root]
    assert stat.S_IMODE(bus.root.stat().st_mode) == 0o700
    bus.close()
    bus.close()
    with pytest.raises(ZeroDivisionError), EmulatedBus([file]):
        _ = 1 // 0
    assert list(own_tmp.iterdir()) == []
    assert file.read_bytes() == bytes(4 * KIB)


def test_missing_file_raises_and_leaves_no_directory(tmp_path: Path, own_tmp: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with pytest.raises(FileNotFoundError):
        EmulatedBus([file, tmp_path / "missing"])
    assert list(own_tmp.iterdir()) == []
    with EmulatedBus([file]) as bus:
        with pytest.raises(FileNotFoundError):
            bus.add(tmp_path / "missing")
        assert len(scan(bus.root)) == 1


# --- metadata -----------------------------------------------------------------------------------------------

WATCHER = """
import sys, eal
with eal.init(file_prefix=sys.argv[1] + "guest", no_huge=True, sysfs_root=sys.argv[2] or None) as made:
    watch = made.watch(lambda event: print(event.kind, event.metadata, flush=True))
    print("shares", *[share.name for share in made.shares], flush=True)
    for line in sys.stdin:
        try:
            print(eal.ring_lookup(line.strip()).enqueue(1), flush=True)
        except (eal.NotFound, eal.Detached) as error:
            print(type(error).__name__, flush=True)
"""


@pytest.fixture
def bus() -> Iterator[EmulatedBus]:
    with EmulatedBus() as made:
        yield made


def names_on(bus: EmulatedBus) -> list[str]:
    return [device.address for device in scan(bus.root)]


def test_plug_extend_and_unplug_metadata_under_running_guest(
    primary: eal.Eal, bus: EmulatedBus, peer: Callable[..., Any]
) -> None:
    guest = peer(WATCHER, bus.root)
    assert guest.hear() == "shares"
    for turn in ("a", "b"):
        metadata = ivshmem.metadata_create(turn)
        metadata.add_ring(eal.ring_create(f"{turn}0", 8))
        assert len(bus.plug(metadata)) == 2
        assert guest.hear() == f"plugged {turn}"
        metadata.add_ring(eal.ring_create(f"{turn}1", 8, group=f"more {turn}"))
        (address,) = bus.plug(metadata)
        assert bus.plug(metadata) == []
        while (
            heard := guest.hear()
        ) == f"pending {turn}":  # the guest may read the table before the bus has the segment
            pass
        assert heard == f"added {turn}"
        for ring in (f"{turn}0", f"{turn}1"):
            guest.say(ring)
            assert guest.hear() == "True"
            assert eal.ring_lookup(ring).dequeue() == 1
        removed = bus.unplug(metadata)
        assert guest.hear() == f"unplugged {turn}"
        assert len(removed) == 3
        assert address in removed
        assert names_on(bus) == []
        with pytest.raises(eal.NotFound, match=f"metadata '{turn}' is not plugged"):
            bus.unplug(metadata)
        guest.say(f"{turn}0")
        assert guest.hear() == "NotFound"
    guest.end()


def test_unplug_keeps_segments_of_other_metadata(primary: eal.Eal, bus: EmulatedBus) -> None:
    shared, own = eal.ring_create("shared", 8), eal.ring_create("own", 8, group="own")
    both, one = ivshmem.metadata_create("both"), ivshmem.metadata_create("one")
    both.add(shared, own)
    one.add_ring(shared)
    assert [len(bus.plug(metadata)) for metadata in (both, one)] == [3, 1]
    assert len(bus.unplug(both)) == 2
    assert len(names_on(bus)) == 2
    assert len(bus.unplug(one)) == 2
    assert names_on(bus) == []


def test_unplug_without_acknowledgement_names_process_unless_forced(
    primary: eal.Eal, bus: EmulatedBus, peer: Callable[..., Any]
) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_ring(eal.ring_create("ring", 8))
    bus.plug(metadata)
    guest = peer(WATCHER, bus.root)
    assert guest.hear() == "shares vm0"
    os.kill(guest.pid, signal.SIGSTOP)
    try:
        with pytest.raises(eal.Stalled, match=r"'vm0'.* 0\.2 s by .*process " + str(guest.pid)):
            bus.unplug(metadata, timeout=0.2)
    finally:
        os.kill(guest.pid, signal.SIGCONT)
    with metadata.shared() as share:
        assert share.file.leaving == 0  # the announcement is withdrawn
    guest.say("ring")
    assert guest.hear() == "True"
    assert len(names_on(bus)) == 2
    os.kill(guest.pid, signal.SIGSTOP)
    try:
        assert len(bus.unplug(metadata, timeout=0.2, force=True)) == 2
    finally:
        os.kill(guest.pid, signal.SIGCONT)
    assert guest.hear() == "unplugged vm0"
    assert names_on(bus) == []
    guest.end()


def test_emulate_plugs_segments_added_to_metadata(primary: eal.Eal, prefix: str) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_ring(eal.ring_create("first", 8))
    command = [IVSHMEM, "emulate", "vm0", "--", sys.executable, "-P", "-c", WATCHER, prefix, ""]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "shares vm0\n"
        second = eal.ring_create("second", 8, group="another")
        metadata.add_ring(second)
        heard = process.stdout.readline()
        while heard == "pending vm0\n":
            heard = process.stdout.readline()
        assert heard == "added vm0\n"
        out, _ = process.communicate("second\n", timeout=30)
    assert out == "True\n"
    assert process.returncode == 0
    deadline = time.monotonic() + 5
    while second.dequeue() != 1:
        assert time.monotonic() < deadline
