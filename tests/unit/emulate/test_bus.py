# SPDX-License-Identifier: BSD-3-Clause
"""The emulated bus: read-only devices that nobody can write, and metadata that come and go under running guests."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eal
import ivshmem
from eal.pci.bar import Bar
from eal.pci.device import scan
from ivshmem.emulate import readonly_mount
from ivshmem.emulate.runner import EmulatedBus
from ivshmem.vmm.device import Device

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))


def device_of(file: Path, *, readonly: bool = True) -> Device:
    if not file.exists():
        file.write_bytes(b"before".ljust(8192, b"\0"))
    return Device("some", uuid4(), str(file), 8192, readonly)


# --- read-only ----------------------------------------------------------------------------------------------


def errno_of(call: Callable[..., Any], *words: Any) -> int | None:
    try:
        call(*words)
    except OSError as error:
        return error.errno
    return None


def test_a_readonly_device_cannot_be_written(tmp_path: Path) -> None:
    """Not even by root, who may do as the file's mode says otherwise."""
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


def test_nothing_is_left_open_or_mounted(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd"), Path("/proc/self/mountinfo").read_text()
    with EmulatedBus([device_of(tmp_path / "bar")]) as bus:
        bus.remove(bus.add(device_of(tmp_path / "bar")))
    assert (os.listdir("/proc/self/fd"), Path("/proc/self/mountinfo").read_text()) == before


NOBODY = """
import os, sys, tempfile
from pathlib import Path
from uuid import uuid4
from ivshmem.vmm.device import Device
from ivshmem.emulate.runner import EmulatedBus
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


def test_users_who_are_not_root_have_it_too(peer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert peer(NOBODY).end() == f"{errno.EROFS} True\n"


def test_a_kernel_that_forbids_it_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: Path) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(readonly_mount, "_mount", refused)
    monkeypatch.setattr(readonly_mount, "_by_child", lambda _: 0)
    file = tmp_path / "bar"
    with caplog.at_level(logging.WARNING), EmulatedBus([device_of(file)]) as bus:
        assert scan(bus.root)[0].resource.resolve() == file
    assert f"cannot mount {file} read-only: Operation not permitted" in caplog.text
    assert "guests of the emulated bus can write to what they should only read" in caplog.text


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_segment_that_comes_both_ways_is_written_where_it_can_be(
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


# --- metadata -----------------------------------------------------------------------------------------------

WATCHES = """
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


def test_metadata_come_grow_and_go(primary: eal.Eal, bus: EmulatedBus, peer: Callable[..., Any]) -> None:
    """Twice, and the second time in the same slots."""
    guest = peer(WATCHES, bus.root)
    assert guest.hear() == "shares"
    for turn in ("a", "b"):
        metadata = ivshmem.metadata_create(turn)
        metadata.add_ring(eal.ring_create(f"{turn}0", 8))
        assert len(bus.plug(metadata)) == 2
        assert guest.hear() == f"plugged {turn}"
        metadata.add_ring(eal.ring_create(f"{turn}1", 8, group=f"more {turn}"))
        (address,) = bus.plug(metadata)
        assert bus.plug(metadata) == []
        while (heard := guest.hear()) == f"pending {turn}":  # between the publishing and the plugging
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
        with pytest.raises(eal.NotFound, match=f"does not have metadata '{turn}'"):
            bus.unplug(metadata)
        guest.say(f"{turn}0")
        assert guest.hear() == "NotFound"
    guest.end()


def test_a_segment_that_another_metadata_needs_stays(primary: eal.Eal, bus: EmulatedBus) -> None:
    shared, own = eal.ring_create("shared", 8), eal.ring_create("own", 8, group="own")
    both, one = ivshmem.metadata_create("both"), ivshmem.metadata_create("one")
    both.add(shared, own)
    one.add_ring(shared)
    assert [len(bus.plug(metadata)) for metadata in (both, one)] == [3, 1]
    assert len(bus.unplug(both)) == 2
    assert len(names_on(bus)) == 2
    assert len(bus.unplug(one)) == 2
    assert names_on(bus) == []


def test_who_does_not_let_go_is_named(primary: eal.Eal, bus: EmulatedBus, peer: Callable[..., Any]) -> None:
    """It goes on as before, unless forced."""
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_ring(eal.ring_create("ring", 8))
    bus.plug(metadata)
    guest = peer(WATCHES, bus.root)
    assert guest.hear() == "shares vm0"
    os.kill(guest.pid, signal.SIGSTOP)
    try:
        with pytest.raises(eal.Stalled, match=rf"'vm0' was not let go of within 0\.2 s by .* of process {guest.pid}"):
            bus.unplug(metadata, timeout=0.2)
    finally:
        os.kill(guest.pid, signal.SIGCONT)
    with metadata.shared() as share:
        assert share.file.leaving == 0  # taken back: the guest is not to let go any more
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


def test_an_emulated_guest_sees_what_is_added(primary: eal.Eal, prefix: str) -> None:
    """Under `ivshmem emulate`, which looks after that by itself."""
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_ring(eal.ring_create("first", 8))
    command = [IVSHMEM, "emulate", "vm0", "--", sys.executable, "-P", "-c", WATCHES, prefix, ""]
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
