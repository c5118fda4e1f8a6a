# SPDX-License-Identifier: BSD-3-Clause
"""Devices that the kernel is removing: their directory exists slightly longer than the files in it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from eal.pci.device import IvshmemDevice, scan
from eal.probe.events import Event
from eal.probe.observer import ProbeObserver
from eal.probe.prober import Prober
from tests.hotplug import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # as the kernel's /sys does
    monkeypatch.setattr("eal.probe.classify._serial", lambda device: (device.path.stat().st_ino,))
    return Lab(tmp_path)


@pytest.mark.parametrize("which", [0, 1], ids=["metadata", "segment"])
def test_partly_removed_device_is_not_rejected(lab: Any, which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its BAR is gone, which is not an error of the host."""
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    events: list[Event] = []
    observer = ProbeObserver()
    monkeypatch.setattr(observer, "report", events.append)
    prober = Prober(observer)
    prober.devices.update(scan(lab.root))
    prober.devices.close()
    bar = lab.root / "bus/pci/devices" / metadata.addresses[which] / "resource2"
    file = bar.readlink()
    bar.unlink()
    prober.accept_all()
    assert (events, prober.findings.rejections, prober.findings.shares) == ([], [], [])
    bar.symlink_to(file)
    prober.accept_all()
    assert [event.kind for event in events] == ["plugged"]
    prober.close()


@pytest.mark.parametrize("which", [0, 1], ids=["metadata", "segment"])
def test_device_whose_files_return_enodev_is_not_rejected(
    lab: Any, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel removes a file of /sys before its name: an operation on it returns ENODEV."""
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    events: list[Event] = []
    observer = ProbeObserver()
    monkeypatch.setattr(observer, "report", events.append)
    prober = Prober(observer)
    prober.devices.update(scan(lab.root))
    prober.devices.close()

    def read(device: IvshmemDevice, name: str) -> str:
        if device.address == metadata.addresses[which]:
            raise OSError(errno.ENODEV, "No such device")
        return "1"

    with monkeypatch.context() as patch:
        patch.setattr(IvshmemDevice, "read", read)
        prober.accept_all()
    assert (events, prober.findings.rejections, prober.findings.shares) == ([], [], [])
    prober.accept_all()
    assert [event.kind for event in events] == ["plugged"]
    prober.close()
