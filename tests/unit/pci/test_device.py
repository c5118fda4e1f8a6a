# SPDX-License-Identifier: BSD-3-Clause
"""PCI scan: which devices count as ivshmem devices, and their properties in sysfs."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import pyudev

import eal
from eal.errors import from_errno
from eal.pci import device as pci
from eal.pci.bar import Bar
from eal.pci.device import IvshmemDevice, scan


def put(root: Path, address: str, **files: str) -> Path:
    """Create a device with these files."""
    device = root / "bus/pci/devices" / address
    device.mkdir(parents=True)
    for name, text in files.items():
        (device / name).write_text(text)
    return device


def test_scan_returns_ivshmem_devices_sorted_by_address(tmp_path: Path) -> None:
    ids = {"vendor": "0x1af4\n", "device": "0x1110\n"}
    put(tmp_path, "0000:00:0a.0", **ids)
    put(tmp_path, "0001:00:00.0", **ids)
    put(tmp_path, "0000:00:04.0", **ids)
    put(tmp_path, "0000:00:04.1", **ids)
    put(tmp_path, "0000:00:01.0", vendor="0x8086\n", device="0x1110\n")
    put(tmp_path, "0000:00:02.0", vendor="0x1af4\n", device="0x1000\n")  # virtio-net
    put(tmp_path, "0000:00:03.0", vendor="0x1af4\n")  # being removed
    put(tmp_path, "0000:00:05.0", vendor="nonsense", device="0x1110")
    assert [device.address for device in scan(tmp_path)] == [
        "0000:00:04.0",
        "0000:00:04.1",
        "0000:00:0a.0",
        "0001:00:00.0",
    ]
    assert scan(tmp_path)[0] == IvshmemDevice("0000:00:04.0", tmp_path / "bus/pci/devices/0000:00:04.0")


def test_machine_without_pci_has_no_devices(tmp_path: Path) -> None:
    assert scan(tmp_path) == []
    assert scan(tmp_path / "missing") == []


def test_environment_variable_selects_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a", "0000:00:04.0", vendor="0x1af4", device="0x1110")
    put(tmp_path / "b", "0000:00:05.0", vendor="0x1af4", device="0x1110")
    monkeypatch.setenv("EAL_SYSFS_ROOT", str(tmp_path / "a"))
    assert [device.address for device in scan()] == ["0000:00:04.0"]
    assert [device.address for device in scan(tmp_path / "b")] == ["0000:00:05.0"]


def test_pyudev_and_sysfs_agree_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EAL_SYSFS_ROOT", raising=False)
    assert [device.address for device in scan()] == [device.address for device in scan("/sys")]


def test_pyudev_lists_every_pci_device_of_this_machine() -> None:
    assert {device.address for device in pci._by_pyudev()} == {device.address for device in pci._by_sysfs(pci.SYSFS)}


def test_without_libudev_sysfs_is_read(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def missing() -> None:
        raise ImportError("No library named udev")

    monkeypatch.delenv("EAL_SYSFS_ROOT", raising=False)
    monkeypatch.setattr(pyudev, "Context", missing)
    assert scan() == scan("/sys")
    assert "libudev" in caplog.text


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        (["0x0 0x0 0x0", "0x0 0x0 0x0", "0x00000000fe000000 0x00000000fe1fffff 0x0000000000140204"], 2 << 20),
        (["0x0 0x0 0x0", "0x0 0x0 0x0", "0x0 0x0 0x0"], 0),
        (["0x0 0x0 0x0"], 0),
        ([], 0),
        (["0x0 0x0 0x0", "0x0 0x0 0x0", "what is this"], 0),
    ],
)
def test_bar_size_is_read_from_the_resource_file(tmp_path: Path, lines: list[str], size: int) -> None:
    path = put(tmp_path, "0000:00:04.0", resource="\n".join(lines) + "\n")
    assert IvshmemDevice("0000:00:04.0", path).bar_size == size


@pytest.mark.parametrize(("text", "node"), [("1\n", 1), ("-1\n", -1), ("", -1), (None, -1)])
def test_numa_node_is_minus_one_if_unknown(tmp_path: Path, text: str | None, node: int) -> None:
    path = put(tmp_path, "0000:00:04.0", **({} if text is None else {"numa_node": text}))
    assert IvshmemDevice("0000:00:04.0", path).numa_node == node


# --- BARs ---------------------------------------------------------------------------------------------------


def test_bar_without_address_raises_detached(tmp_path: Path) -> None:
    path = put(tmp_path, "0000:00:04.0", enable="0")
    with pytest.raises(eal.Detached, match=r"0000:00:04\.0: BAR2 has no address; the bridge window"):
        Bar(IvshmemDevice("0000:00:04.0", path))
    assert (path / "enable").read_text() == "0"


def test_bar_is_enabled_and_restored(tmp_path: Path) -> None:
    path = put(tmp_path, "0000:00:04.0", enable="0\n", resource2="x" * 8192)
    bar = Bar(IvshmemDevice("0000:00:04.0", path))
    assert (path / "enable").read_text() == "1"
    assert bytes(bar.map(4096, writable=False).view(0, 4)) == b"xxxx"
    with pytest.raises(eal.Corrupt, match="BAR2 must have 8193 bytes or more, got 8192"):
        bar.map(8193, writable=False)
    bar.restore()
    assert (path / "enable").read_text() == "0"
    bar.close()


def test_enabled_bar_stays_enabled(tmp_path: Path) -> None:
    path = put(tmp_path, "0000:00:04.0", enable="1\n", resource2="x" * 8192)
    bar = Bar(IvshmemDevice("0000:00:04.0", path))
    bar.restore()
    bar.close()
    assert (path / "enable").read_text() == "1\n"


def test_bar_that_cannot_be_opened_is_restored(tmp_path: Path) -> None:
    path = put(tmp_path, "0000:00:04.0", enable="0")
    (path / "resource2").mkdir()
    with pytest.raises(eal.Denied, match=r"0000:00:04\.0: cannot open"):
        Bar(IvshmemDevice("0000:00:04.0", path))
    assert (path / "enable").read_text() == "0"


@pytest.mark.parametrize(
    ("code", "driver", "error", "said"),
    [
        (errno.EINVAL, "vfio-pci", eal.InUse, "claimed by driver vfio-pci: echo 0000:00:04.0 > /sys/bus/pci/drivers/"),
        (errno.EINVAL, "", eal.InUse, "claimed by a driver, or another process maps it write-back"),
        (errno.EPERM, "", eal.Denied, r"the kernel \(lockdown\?\) forbids mapping BARs: boot with lockdown=none"),
        (errno.ENOMEM, "", eal.NoMemory, "no room"),
    ],
)
def test_bar_that_cannot_be_mapped_raises_the_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, driver: str, error: type[Exception], said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise from_errno(-code, "no room")

    path = put(tmp_path, "0000:00:04.0", enable="1\n", resource2="x" * 8192)
    if driver:
        (path / "driver").symlink_to(tmp_path / driver)
    bar = Bar(IvshmemDevice("0000:00:04.0", path))
    monkeypatch.setattr("eal.pci.bar.Mapping", fail)
    monkeypatch.setattr("eal.pci.bar.lockdown", lambda: None)
    with pytest.raises(error, match=said):
        bar.map(4096, writable=False)
    bar.close()
