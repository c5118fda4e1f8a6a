# SPDX-License-Identifier: BSD-3-Clause
"""Read-only devices of the emulated bus: no process can write them."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eal
import ivshmem
from eal.pci.bar import Bar
from eal.pci.device import scan
from ivshmem.emulate import readonly_mount
from ivshmem.emulate.bus import EmulatedBus
from ivshmem.vmm.device import Device


def device_of(file: Path, *, readonly: bool = True) -> Device:
    if not file.exists():
        file.write_bytes(b"before".ljust(8192, b"\0"))
    return Device("some", uuid4(), str(file), 8192, readonly)


def errno_of(call: Callable[..., Any], *words: Any) -> int | None:
    try:
        call(*words)
    except OSError as error:
        return error.errno
    return None


def test_readonly_device_cannot_be_written(tmp_path: Path) -> None:
    """Not even by root, who may ignore the mode of a file."""
    file = tmp_path / "bar"
    with EmulatedBus([device_of(file)]) as bus:
        (device,) = scan(bus.root)
        resource = device.resource
        assert errno_of(os.open, resource, os.O_RDWR) == errno.EROFS
        assert errno_of(os.open, resource, os.O_WRONLY | os.O_TRUNC) == errno.EROFS
        assert errno_of(os.truncate, resource, 0) == errno.EROFS
        assert errno_of(os.chmod, resource, 0o777) == errno.EROFS
        with open(resource, "rb") as opened:
            assert errno_of(mmap.mmap, opened.fileno(), 0) == errno.EACCES
        bar = Bar(device)
        assert bytes(bar.map(8192, writable=False).view(0, 6)) == b"before"
        with pytest.raises(eal.Denied):
            bar.map(8192, writable=True)
        file.write_bytes(b"behind".ljust(8192, b"\0"))
        assert bytes(bar.map(8192, writable=False).view(0, 6)) == b"behind"
        bar.close()
        assert device.bar_size == 8192


def test_closed_bus_leaves_no_descriptor_and_no_mount(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd"), Path("/proc/self/mountinfo").read_text()
    with EmulatedBus([device_of(tmp_path / "bar")]) as bus:
        bus.remove(bus.add(device_of(tmp_path / "bar")))
    assert (os.listdir("/proc/self/fd"), Path("/proc/self/mountinfo").read_text()) == before


UNPRIVILEGED = """
import os, sys, tempfile
from pathlib import Path
from uuid import uuid4
from ivshmem.vmm.device import Device
from ivshmem.emulate.bus import EmulatedBus
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "bar")
    file.write_bytes(bytes(8192))
    with EmulatedBus([Device("some", uuid4(), str(file), 8192, True)]) as bus:
        resource = next(bus.root.glob("bus/pci/devices/*/resource2"))
        try:
            resource.open("r+b")
        except OSError as error:
            print(error.errno, resource.read_bytes() == bytes(8192), flush=True)
"""


def test_readonly_device_of_unprivileged_user_cannot_be_written(
    peer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert peer(UNPRIVILEGED).end() == f"{errno.EROFS} True\n"


def test_refused_mount_is_logged_and_leaves_device_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: Path) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(readonly_mount, "_mount", refused)
    monkeypatch.setattr(readonly_mount, "_mount_in_child", lambda _: 0)
    file = tmp_path / "bar"
    with caplog.at_level(logging.WARNING), EmulatedBus([device_of(file)]) as bus:
        assert scan(bus.root)[0].resource.resolve() == file
    assert f"cannot mount {file} read-only: Operation not permitted" in caplog.text
    assert "guests of the emulated bus can write to a read-only device" in caplog.text


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_segment_plugged_readonly_and_writable_is_writable(
    primary: eal.Eal, runtime_dir: Path, order: tuple[bool, bool]
) -> None:
    zone = eal.memzone_reserve("zone", 64)
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(zone)
    segment, table = metadata.devices()
    devices = [Device(segment.id, segment.uuid, segment.path, segment.size, readonly) for readonly in order]
    script = "import eal\nwith eal.init(): eal.memzone_lookup('zone').buf[:4] = b'here'"
    with EmulatedBus([*devices, table]) as bus:
        env = {**os.environ, "EAL_SYSFS_ROOT": str(bus.root), "EAL_RUNTIME_DIR": str(runtime_dir / "guest")}
        subprocess.run([sys.executable, "-P", "-c", script], check=True, env=env)
    assert bytes(zone.buf[:4]) == b"here"
