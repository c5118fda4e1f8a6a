# SPDX-License-Identifier: BSD-3-Clause
"""PCI devices and the node each hangs on; ivshmem devices are named by what lies in their memory."""

from __future__ import annotations

import mmap
import os

from eal.topology.facts import PciDevice
from eal.topology.tree import Tree

_PCI = "sys/bus/pci/devices"
_IVSHMEM = (0x1AF4, 0x1110)

# The few bytes of native/include/layout.h needed here; a test compares them with it. The compiled core is not
# used, because cpu-layout runs from a checkout where nothing is built.
METADATA_MAGIC = b"IVSHMMET"
METADATA_NAME = slice(40, 72)
SEGMENT_MAGIC = b"IVSHMSEG"
SEGMENT_GROUP = slice(72, 104)
HEADER_SIZE = 4096

CLASS_NAMES = {
    0x01: "storage",
    0x02: "network",
    0x03: "display",
    0x04: "multimedia",
    0x05: "memory",
    0x06: "bridge",
    0x07: "communication",
    0x08: "system",
    0x09: "input",
    0x0B: "processor",
    0x0C: "serial bus",
    0x0D: "wireless",
    0x10: "encryption",
    0x12: "accelerator",
}


def read_pci(tree: Tree) -> tuple[PciDevice, ...]:
    """Every PCI function, by address."""
    return tuple(_read_device(tree, address) for address in tree.names(_PCI))


def class_name(device: PciDevice) -> str:
    """What kind of device it is, in a word; its class code where there is no word."""
    return CLASS_NAMES.get(device.class_code >> 16, f"class {device.class_code >> 16:02x}")


def _read_device(tree: Tree, address: str) -> PciDevice:
    folder = f"{_PCI}/{address}"
    vendor, device = _hex(tree, f"{folder}/vendor"), _hex(tree, f"{folder}/device")
    node = tree.number(f"{folder}/numa_node")
    driver = tree.path(f"{folder}/driver")
    return PciDevice(
        address=address,
        vendor=vendor,
        device=device,
        class_code=_hex(tree, f"{folder}/class"),
        node=node if node is not None and node >= 0 else None,
        driver=os.path.basename(os.path.realpath(driver)) if os.path.islink(driver) else None,
        interfaces=_interfaces(tree, folder),
        metadata=_carried(tree.path(f"{folder}/resource2")) if (vendor, device) == _IVSHMEM else None,
    )


def _hex(tree: Tree, name: str) -> int:
    try:
        return int(tree.text(name) or "0", 16)
    except ValueError:
        return 0


def _interfaces(tree: Tree, folder: str) -> tuple[str, ...]:
    """Names a person knows the device by: eth0, nvme0n1, vda. virtio puts them one directory deeper."""
    names: list[str] = []
    for place in [folder, *(f"{folder}/{name}" for name in tree.names(folder) if name.startswith("virtio"))]:
        names += tree.names(f"{place}/net") + tree.names(f"{place}/block") + tree.names(f"{place}/nvme")
    return tuple(names)


def _carried(resource: str) -> str | None:
    """The name of the metadata, or the group of the segment, in an ivshmem BAR. None: foreign, or unreadable.

    A BAR can only be mapped, not read. The device is not enabled for this: one that is off reads as all ones.
    """
    try:
        handle = os.open(resource, os.O_RDONLY)
    except OSError:
        return None
    try:
        with mmap.mmap(handle, HEADER_SIZE, mmap.MAP_SHARED, mmap.PROT_READ) as bar:
            page = bar[:HEADER_SIZE]
    except (OSError, ValueError):
        return None
    finally:
        os.close(handle)
    if page.startswith(METADATA_MAGIC):
        return f"metadata {_name(page[METADATA_NAME])!r}"
    if page.startswith(SEGMENT_MAGIC):
        return f"segment of group {_name(page[SEGMENT_GROUP])!r}"
    return None


def _name(field: bytes) -> str:
    """A NUL-terminated name out of memory that a guest may have written: nothing unprintable gets through."""
    text = field.split(b"\0")[0].decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text)
