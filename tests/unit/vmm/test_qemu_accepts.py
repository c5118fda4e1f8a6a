# SPDX-License-Identifier: BSD-3-Clause
"""QEMU accepts the command lines: a QEMU without a guest is started, and its devices are queried by QMP."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal.runtime.prefix_dir import file_stem

pytestmark = pytest.mark.vm

MIB = 1 << 20
IVSHMEM = (0x1AF4, 0x1110)
# User-supplied devices at fixed addresses of the root bus, and one without an address.
OTHERS = [
    *("-device", "virtio-rng-pci,id=low,addr=0x3"),
    *("-device", "virtio-rng-pci,id=middle,addr=0x10"),
    *("-device", "virtio-rng-pci,id=high,addr=0x17"),
    *("-device", "virtio-rng-pci,id=top,addr=0x1e"),
    *("-device", "virtio-rng-pci,id=auto"),
]
LOW = [word for slot in range(1, 16) for word in ("-device", f"virtio-rng-pci,id=low{slot},addr={slot:#x}")]


class Qemu:
    """A QEMU without a guest, and its QMP connection. The context manager ends the process."""

    def __init__(self, args: Sequence[str], *, machine: str = "q35", boot: bool = False, shell: str = "") -> None:
        base = ["qemu-system-x86_64", "-machine", machine, "-accel", "tcg", "-nodefaults", "-no-user-config"]
        base += ["-display", "none", "-qmp", "stdio", *([] if boot else ["-S"])]
        command = ["sh", "-c", f"exec {shlex.join(base)} {shell}"] if shell else [*base, *args]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)
        assert self._process.stdin
        assert self._process.stdout

    def __enter__(self) -> Qemu:
        try:
            self.execute("qmp_capabilities")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command and return its result; events are ignored."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        try:
            stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            for line in stdout:
                if "return" in (answer := json.loads(line)):
                    return answer["return"]
                assert "error" not in answer, answer
        except BrokenPipeError:
            pass
        _, errors = self._process.communicate()
        pytest.fail(f"QEMU ended with status {self._process.returncode}: {errors}")

    def memdevs(self) -> dict[str, dict[str, Any]]:
        """Return the memory backends by id, without that of the machine."""
        return {backend["id"]: backend for backend in self.execute("query-memdev") if backend["id"] != "pc.ram"}

    def peripherals(self, kind: str) -> dict[str, str]:
        """Return the QOM paths of the devices of a type by id.

        query-pci does not list devices behind bridges that the firmware has not set up.
        """
        children = self.execute("qom-list", path="/machine/peripheral")
        return {
            one["name"]: f"/machine/peripheral/{one['name']}" for one in children if one["type"] == f"child<{kind}>"
        }

    def ivshmem(self) -> dict[str, int]:
        """Return the memory size in bytes of each ivshmem device by id."""
        sizes = {name: backend["size"] for name, backend in self.memdevs().items()}
        devices = self.peripherals("ivshmem-plain").items()
        memdevs = {name: self.execute("qom-get", path=path, property="memdev") for name, path in devices}
        return {name: sizes[memdev.removeprefix("/objects/")] for name, memdev in memdevs.items()}

    def root_slots(self) -> dict[str, int]:
        """Return the slot of each device on the root bus by id."""
        (bus,) = self.execute("query-pci")
        return {device["qdev_id"]: device["slot"] for device in bus["devices"]}


def bars_of(*metadata: ivshmem.Metadata) -> dict[str, int]:
    """Return the expected memory sizes of the devices of metadata files by id, each segment once."""
    merged = {device.uuid: device for one in reversed(metadata) for device in one.devices()}
    return {f"{device.id}-dev": device.size for device in merged.values()}


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_qemu_has_each_device_with_its_backend(primary: eal.Eal, machine: str) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    metadata.add_memzone(eal.memzone_reserve("large", 20 * MIB, group="large"))
    metadata.add_memzone(eal.memzone_reserve("seen", 64, group="seen"), readonly=True)
    with Qemu([*OTHERS, *metadata.qemu_args()], machine=machine) as qemu:
        assert qemu.ivshmem() == bars_of(metadata)
        backends = qemu.memdevs()
    assert {name: backend["size"] for name, backend in backends.items()} == {d.id: d.size for d in metadata.devices()}
    assert sorted(device.size for device in metadata.devices()) == [MIB, 2 * MIB, 2 * MIB, 32 * MIB]
    assert all(backend["share"] for backend in backends.values())


ODD = ["a,b=c", "share=off,size=1M", "two  blanks 'and' \"quotes\"", "$(id)`id`\\*?;&|", "ü", "-", "%s{}"]


@pytest.mark.parametrize("name", ODD)
def test_qemu_accepts_special_characters_in_paths(runtime_dir: Path, name: str) -> None:
    files: set[str] = set()
    with eal.init(file_prefix=name, no_huge=True):
        metadata = ivshmem.metadata_create(name)
        metadata.add_memzone(eal.memzone_reserve("zone", 64))
        files = {path.name for path in Path("/dev/shm").glob(f"{file_stem(runtime_dir)}.*")}
        with Qemu(metadata.qemu_args()) as qemu:
            assert qemu.ivshmem() == bars_of(metadata)
        with Qemu([], shell=metadata.cmdline()) as qemu:
            assert qemu.ivshmem() == bars_of(metadata)
        # QEMU would have created a file for a wrong path.
        assert {path.name for path in Path("/dev/shm").glob(f"{file_stem(runtime_dir)}.*")} == files


def test_concatenated_options_of_two_metadata_files(primary: eal.Eal) -> None:
    """The options are created separately, and have a segment in common."""
    common = eal.memzone_reserve("common", 64)
    made = [ivshmem.metadata_create(name) for name in ("vm0", "vm1")]
    for number, metadata in enumerate(made):
        metadata.add_memzone(common)
        metadata.add_memzone(eal.memzone_reserve(f"own{number}", 64, group=f"own{number}"))
    with Qemu([*made[0].qemu_args(), *made[1].qemu_args(), *ivshmem.qemu_args(plug="256M"), *OTHERS]) as qemu:
        assert qemu.ivshmem() == bars_of(made[0]) | bars_of(made[1])
        assert len(qemu.memdevs()) == 6
        assert [qemu.root_slots()[name] for name in ("ivs-bus0", "ivs-bus1", "ivs-plug")] == [0x1C, 0x1B, 0x1A]
    with Qemu(ivshmem.qemu_args(*made)) as qemu:
        assert qemu.ivshmem() == bars_of(*made)
        assert len(qemu.memdevs()) == 5


def test_metadata_before_devices_with_fixed_addresses(primary: eal.Eal) -> None:
    """Without a bridge, QEMU would assign a low slot that a later option of the user needs."""
    with Qemu([*ivshmem.metadata_create("vm0").qemu_args(), "-usb", *LOW]) as qemu:
        assert [qemu.root_slots()[f"low{slot}"] for slot in range(1, 16)] == list(range(1, 16))


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_hundred_metadata_files_beside_devices_with_fixed_addresses(primary: eal.Eal, machine: str) -> None:
    made = [ivshmem.metadata_create(f"vm{number}", capacity=16 << 10) for number in range(100)]
    for number, metadata in enumerate(made):
        metadata.add_memzone(eal.memzone_reserve(f"zone{number}", 64, group=f"group{number}"))
    args = ivshmem.qemu_args(*made, plug="1G")
    # User-supplied devices first, and last: then a slot that QEMU had assigned itself could already be in use.
    for command in ([*OTHERS, *args], [*args, *OTHERS]):
        with Qemu(command, machine=machine) as qemu:
            assert qemu.ivshmem() == bars_of(*made)
            assert len(qemu.ivshmem()) == 200
            slots = qemu.root_slots()
        assert [slots[name] for name in ("low", "middle", "high", "top")] == [0x03, 0x10, 0x17, 0x1E]
        assert "auto" in slots


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_thousand_zones_in_64_segments(primary: eal.Eal, machine: str) -> None:
    metadata = ivshmem.metadata_create("vm0")
    for number in range(1000):
        metadata.add_memzone(eal.memzone_reserve(f"zone{number}", 64, group=f"group{number % 64}"))
    with Qemu([*ivshmem.qemu_args(metadata), *OTHERS], machine=machine) as qemu:
        assert qemu.ivshmem() == bars_of(metadata)
        assert len(qemu.ivshmem()) == 65


def test_bound_segment_has_host_node(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64, socket_id=0, group="bound"))
    with Qemu(metadata.qemu_args()) as qemu:
        bound, own = (qemu.memdevs()[device.id] for device in metadata.devices())
    assert (bound["host-nodes"], bound["policy"]) == ([0], "bind")
    assert (own["host-nodes"], own["policy"]) == ([], "default")


# --- windows ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["q35", "pc"])
def booted(request: pytest.FixtureRequest, primary: eal.Eal) -> Iterator[Qemu]:
    """Return a QEMU whose firmware has set up the PCI devices: one metadata file, and a window of 1 GiB."""
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    with Qemu([*OTHERS, *ivshmem.qemu_args(metadata, plug="1G")], machine=request.param, boot=True) as qemu:
        yield qemu


def test_plug_reserves_a_window(booted: Qemu) -> None:
    deadline = time.monotonic() + 30
    while True:
        (bus,) = booted.execute("query-pci")
        bridge = next(device for device in bus["devices"] if device["qdev_id"] == "ivs-plug")["pci_bridge"]["bus"]
        if width(bridge["prefetchable_range"]) == 1 << 30:
            break
        assert time.monotonic() < deadline, bridge
        time.sleep(0.1)
    assert width(bridge["memory_range"]) >= 4 * MIB
    # The devices of the command line have addresses too.
    on_bridge = next(device for device in bus["devices"] if device["qdev_id"] == "ivs-bus0")["pci_bridge"]["devices"]
    own = [d for d in on_bridge if (d["id"]["vendor"], d["id"]["device"]) == IVSHMEM]
    assert len(own) == 2
    assert all(region["address"] > 0 for device in own for region in device["regions"])


def width(window: dict[str, int]) -> int:
    return window["limit"] - window["base"] + 1
