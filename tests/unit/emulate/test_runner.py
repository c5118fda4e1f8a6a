# SPDX-License-Identifier: BSD-3-Clause
"""The emulated bus: a folder that reads like the kernel's, and a guest's surroundings that leave nothing behind."""

from __future__ import annotations

import itertools
import os
import re
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal.pci.device import scan
from ivshmem.emulate.runner import EmulatedBus, guest_environment, run

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that must be empty when the test ends."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def file_of(folder: Path, size: int, name: str = "bar") -> Path:
    path = folder / name
    path.write_bytes(bytes(size))
    return path


# --- the bus ------------------------------------------------------------------------------------------------


def test_scan_finds_what_was_added(tmp_path: Path) -> None:
    files = [file_of(tmp_path, size, f"bar{size}") for size in (4 * KIB, 2 * MIB, 1 * MIB)]
    with EmulatedBus(files) as bus:
        found = scan(bus.root)
        assert [device.address for device in found] == ["0000:00:02.0", "0000:00:03.0", "0000:00:04.0"]
        assert [device.bar_size for device in found] == [4 * KIB, 2 * MIB, 1 * MIB]
        assert [device.resource.resolve() for device in found] == files
        assert [device.numa_node for device in found] == [-1, -1, -1]
        for device in found:
            device.resource.open("r+b").close()


def test_scan_looks_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatedBus([file_of(tmp_path, 4 * KIB)]) as bus:
        monkeypatch.setenv("EAL_SYSFS_ROOT", str(bus.root))
        assert [device.path.parent for device in scan()] == [bus.root / "bus/pci/devices"]


def test_devices_come_and_go(tmp_path: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with EmulatedBus([]) as bus:
        assert scan(bus.root) == []
        addresses = [bus.add(file) for _ in range(3)]
        assert [device.address for device in scan(bus.root)] == addresses
        bus.remove(addresses[1])
        assert [device.address for device in scan(bus.root)] == [addresses[0], addresses[2]]
        assert file.exists()
        fourth = bus.add(file)
        assert fourth not in addresses  # no address comes again: who held the old one cannot mistake it
        assert [device.address for device in scan(bus.root)] == [addresses[0], addresses[2], fourth]


def test_a_slot_is_used_again(tmp_path: Path) -> None:
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


def test_devices_come_whole(tmp_path: Path) -> None:
    """Whoever lists the bus at any moment sees all of a device's files, or no device."""
    file = file_of(tmp_path, 4 * KIB)
    with EmulatedBus([]) as bus:
        stop = threading.Event()
        faults: list[object] = []

        def look() -> None:
            while not stop.is_set():
                for name in os.listdir(bus.root / "bus/pci/devices"):
                    found = set(os.listdir(bus.root / "bus/pci/devices" / name))
                    if not {"vendor", "device", "enable", "resource", "resource2"} <= found:
                        faults.append(found)

        reader = threading.Thread(target=look)
        reader.start()
        for _ in range(200):
            bus.add(file)
        stop.set()
        reader.join()
    assert faults == []


def test_addresses_are_pci_addresses_however_many(tmp_path: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with EmulatedBus([file] * 300) as bus:
        found = [device.address for device in scan(bus.root)]
    assert len(set(found)) == 300
    assert all(re.fullmatch(r"0000:0[0-9]:[01][0-9a-f]\.0", address) for address in found)
    assert found[29:31] == ["0000:00:1f.0", "0000:01:00.0"]


@pytest.mark.parametrize("size", [4 * KIB, 64 * KIB, 2 * MIB, 1 << 34])
def test_a_device_reads_as_in_the_kernels_sysfs(tmp_path: Path, size: int) -> None:
    """As measured on an ivshmem-plain device of QEMU 7.2: thirteen lines, BAR0 of 256 bytes, BAR2 with the memory."""
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


def test_writes_reach_the_file(tmp_path: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with EmulatedBus([file]) as bus:
        scan(bus.root)[0].resource.write_bytes(b"hello" + bytes(4 * KIB - 5))
    assert file.read_bytes()[:5] == b"hello"


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_of(tmp_path, 4 * KIB)
    monkeypatch.chdir(tmp_path)
    with EmulatedBus(["bar"]) as bus:
        monkeypatch.chdir("/")
        assert scan(bus.root)[0].resource.stat().st_size == 4 * KIB


def test_the_folder_goes_with_the_bus(tmp_path: Path, own_tmp: Path) -> None:
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


def test_a_file_that_is_not_there(tmp_path: Path, own_tmp: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with pytest.raises(FileNotFoundError):
        EmulatedBus([file, tmp_path / "missing"])
    assert list(own_tmp.iterdir()) == []
    with EmulatedBus([file]) as bus:
        with pytest.raises(FileNotFoundError):
            bus.add(tmp_path / "missing")
        assert len(scan(bus.root)) == 1


# --- a guest's surroundings ---------------------------------------------------------------------------------


def test_the_environment_of_a_guest(tmp_path: Path, own_tmp: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with guest_environment([file]) as env:
        assert sorted(env) == ["EAL_RUNTIME_DIR", "EAL_SYSFS_ROOT"]
        assert [device.resource.resolve() for device in scan(env["EAL_SYSFS_ROOT"])] == [file]
        run_dir = Path(env["EAL_RUNTIME_DIR"])
        assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
        assert list(run_dir.iterdir()) == []
    assert list(own_tmp.iterdir()) == []


def test_two_guests_at_once_share_nothing_but_the_files(tmp_path: Path) -> None:
    file = file_of(tmp_path, 4 * KIB)
    with guest_environment([file]) as first, guest_environment([file]) as second:
        assert set(first.values()).isdisjoint(second.values())


# Makes a segment, a metadata and a ring of its own, and dies without a word.
MESSY_GUEST = """
import os, eal, ivshmem
made = eal.init(file_prefix=os.environ["GUEST_PREFIX"], no_huge=True)
metadata = ivshmem.metadata_create("own")
metadata.add_ring(eal.ring_create("ring", 8))
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("fault", [None, ZeroDivisionError, KeyboardInterrupt])
def test_what_a_guest_left_is_taken_away(
    peer: Callable[..., Any], prefix: str, monkeypatch: pytest.MonkeyPatch, own_tmp: Path, fault: Any
) -> None:
    """However its block is left."""

    def messy() -> None:
        with guest_environment([]) as env, monkeypatch.context() as patch:
            for name, value in {**env, "GUEST_PREFIX": prefix}.items():
                patch.setenv(name, value)
            peer(MESSY_GUEST).wait()
            assert len(list(Path("/dev/shm").glob(f"*.{prefix}.*"))) == 2
            if fault is not None:
                raise fault

    if fault is None:
        messy()
    else:
        with pytest.raises(fault):
            messy()
    assert list(Path("/dev/shm").glob(f"*.{prefix}.*")) == []
    assert list(own_tmp.iterdir()) == []


# --- running a command --------------------------------------------------------------------------------------


@pytest.fixture
def metadata(primary: eal.Eal) -> ivshmem.Metadata:
    made = ivshmem.metadata_create("vm0")
    made.add_memzone(eal.memzone_reserve("zone", 64))
    return made


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_status_of_the_command(metadata: ivshmem.Metadata, script: str, status: int, own_tmp: Path) -> None:
    assert run(metadata.devices(), ["sh", "-c", script]) == status
    assert list(own_tmp.iterdir()) == []


def test_a_guest_finds_its_share(metadata: ivshmem.Metadata, tmp_path: Path) -> None:
    script = "import eal, sys\nwith eal.init():\n eal.memzone_lookup('zone').buf[:5] = b'hello'"
    assert run(metadata.devices(), [sys.executable, "-P", "-c", script]) == 0
    assert bytes(eal.memzone_lookup("zone").buf[:5]) == b"hello"


def test_the_environment_is_the_callers_and_two_more(metadata: ivshmem.Metadata, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = {"PATH": os.environ["PATH"], "OUT": str(out), "EAL_SYSFS_ROOT": "/nowhere"}
    assert run(metadata.devices(), ["sh", "-c", 'env >"$OUT"'], given) == 0
    seen = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert {"PATH", "OUT", "EAL_SYSFS_ROOT", "EAL_RUNTIME_DIR"} <= seen.keys()
    assert seen.keys() <= {*given, "EAL_RUNTIME_DIR", "PWD", "OLDPWD", "SHLVL", "_"}
    assert seen["EAL_SYSFS_ROOT"] != "/nowhere"
    assert given["EAL_SYSFS_ROOT"] == "/nowhere"


def test_a_command_that_cannot_be_run(metadata: ivshmem.Metadata, own_tmp: Path) -> None:
    for command, error in (["no-such-command"], FileNotFoundError), (["/"], PermissionError):
        with pytest.raises(error):
            run(metadata.devices(), command)
    assert list(own_tmp.iterdir()) == []
