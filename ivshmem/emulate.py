"""Emulation: a PCI bus in a folder, so that a guest app runs unchanged with no VM at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from eal import leftovers, runtime
from eal.errors import Exists
from eal.pci import DEVICE, VENDOR
from ivshmem.device import Device

_FIRST_SLOT = 2  # 0 and 1 are the host bridge's and the VGA's on many machines
_WINDOW = 0x80_0000_0000  # where the emulated BARs claim to be
_MEM64_PREFETCH = 0x14220C  # the kernel's flags of a 64-bit prefetchable memory BAR
_MEM32 = 0x40200
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class EmulatedBus:
    """A folder that looks like /sys to `eal.init(sysfs_root=...)`: BARs are the shared files themselves.

    A context manager; `root` is the folder. Files of sysfs that nothing here reads are left out.
    """

    def __init__(self, files: Iterable[Path | str], folder: Path | None = None) -> None:
        """One ivshmem device for each file, in this order."""
        self.root = Path(tempfile.mkdtemp(prefix="ivshmem-bus-", dir=folder))
        self._next = 0
        self._address = _WINDOW
        (self.root / "bus/pci/devices").mkdir(parents=True)
        try:
            for file in files:
                self.add(Path(file))
        except BaseException:
            self.close()
            raise

    def add(self, file: Path, address: str | None = None) -> str:
        """Puts one more device on the bus, while guests run too; gives its PCI address.

        `address` is one that `remove` has made free; without it a slot is taken that never had a device. The device
        appears whole, by one rename. Raises Exists for an address that is taken.
        """
        size = file.stat().st_size
        if address is None:
            slot = _FIRST_SLOT + self._next
            self._next += 1
            address = f"0000:{slot >> 5:02x}:{slot & 31:02x}.0"
        place = self.root / "bus/pci/devices" / address
        if place.exists():
            raise Exists(f"there is a device at {address} already: remove it first, or leave the address out")
        device = Path(tempfile.mkdtemp(prefix="new-", dir=self.root))
        device.chmod(0o755)
        start = -(-self._address // max(size, 1)) * max(size, 1)
        self._address = start + size
        texts = {
            "vendor": f"{VENDOR:#06x}",
            "device": f"{DEVICE:#06x}",
            "subsystem_vendor": "0x1af4",
            "subsystem_device": "0x1100",
            "class": "0x050000",
            "revision": "0x01",
            "numa_node": "-1",
            "enable": "0",
            "resource": _resource_lines(start, size),
        }
        for name, text in texts.items():
            (device / name).write_text(f"{text}\n")
        (device / "resource2").symlink_to(file.absolute())
        device.rename(place)
        return address

    def remove(self, address: str) -> None:
        """Takes a device off the bus: it goes as a whole, by one rename. A surprise to guests, who are not asked."""
        gone = Path(tempfile.mkdtemp(prefix="gone-", dir=self.root))
        (self.root / "bus/pci/devices" / address).rename(gone)
        shutil.rmtree(gone)

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> EmulatedBus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _resource_lines(start: int, size: int) -> str:
    """The `resource` file: start, end and flags of each of the 13 BARs and windows."""
    bars = {0: (0xFEBF_0000, 0xFEBF_00FF, _MEM32), 2: (start, start + size - 1, _MEM64_PREFETCH)}
    return "\n".join("0x{:016x} 0x{:016x} 0x{:016x}".format(*bars.get(bar, (0, 0, 0))) for bar in range(13))


@contextmanager
def guest_environment(files: Iterable[Path | str]) -> Iterator[dict[str, str]]:
    """The environment of a guest app on an emulated bus, with a runtime directory of its own; what the guest left
    behind is taken away at the end.
    """
    folder = Path(tempfile.mkdtemp(prefix="ivshmem-guest-"))
    try:
        with EmulatedBus(files, folder) as bus:
            root = runtime.make_private(folder / "run")
            try:
                yield {"EAL_SYSFS_ROOT": str(bus.root), "EAL_RUNTIME_DIR": str(root)}
            finally:
                for directory in runtime.prefixes(root):
                    leftovers.remove(directory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(devices: Sequence[Device], command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Runs a command as the guest that is given these devices; gives its exit status (128 + N for signal N).

    SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on, and the command is waited for.
    """
    with guest_environment(device.path for device in devices) as guest, _passing_on() as pass_to:
        process = subprocess.Popen(command, env={**(os.environ if env is None else env), **guest})
        pass_to(process)
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _passing_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Signals go to the process that the function it gives is called with; those that came before that, too."""
    receiver: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if receiver is None:
            early.append(number)
        elif number not in (signal.SIGINT, signal.SIGQUIT) or not _in_foreground():
            receiver.send_signal(number)

    def pass_to(process: subprocess.Popen[bytes]) -> None:
        nonlocal receiver
        receiver = process
        for number in early:
            process.send_signal(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # of nohup, or of a shell for what it runs in the background
            signal.signal(number, pass_on)
    try:
        yield pass_to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether a terminal's Ctrl-C goes to this process and its children: they have it already then."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
