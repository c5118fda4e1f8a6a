# SPDX-License-Identifier: BSD-3-Clause
"""PCI devices with their NUMA nodes; the content of ivshmem devices is read from their BAR 2."""

from __future__ import annotations

import mmap
import os

from eal.topology.facts import PciDevice
from eal.topology.tree import Tree

_PCI = "sys/bus/pci/devices"
_IVSHMEM = (0x1AF4, 0x1110)

# Copied from native/include/layout.h, because cpu-layout runs from a checkout without the compiled core. A test
# compares these constants with the header.
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
    """Return every PCI function, by address."""
    return tuple(_read_device(tree, address) for address in tree.names(_PCI))


def class_name(device: PciDevice) -> str:
    """Return the device's PCI base class in one or two words, or as a number if it has no name here."""
    return CLASS_NAMES.get(device.class_code >> 16, f"class {device.class_code >> 16:02x}")


def _read_device(tree: Tree, address: str) -> PciDevice:
    directory = f"{_PCI}/{address}"
    vendor, device = _hex(tree, f"{directory}/vendor"), _hex(tree, f"{directory}/device")
    node = tree.number(f"{directory}/numa_node")
    driver = tree.path(f"{directory}/driver")
    return PciDevice(
        address=address,
        vendor=vendor,
        device=device,
        class_code=_hex(tree, f"{directory}/class"),
        node=node if node is not None and node >= 0 else None,
        driver=os.path.basename(os.path.realpath(driver)) if os.path.islink(driver) else None,
        interfaces=_interfaces(tree, directory),
        metadata=_ivshmem_content(tree.path(f"{directory}/resource2")) if (vendor, device) == _IVSHMEM else None,
    )


def _hex(tree: Tree, name: str) -> int:
    try:
        return int(tree.text(name) or "0", 16)
    except ValueError:
        return 0


def _interfaces(tree: Tree, directory: str) -> tuple[str, ...]:
    """Return interface names such as eth0, nvme0n1 or vda. virtio devices have them one directory deeper."""
    names: list[str] = []
    for parent in [directory, *(f"{directory}/{name}" for name in tree.names(directory) if name.startswith("virtio"))]:
        names += tree.names(f"{parent}/net") + tree.names(f"{parent}/block") + tree.names(f"{parent}/nvme")
    return tuple(names)


def _ivshmem_content(resource: str) -> str | None:
    """Return the name of the metadata file, or the group of the segment, in an ivshmem BAR.

    Return None for a BAR that has other content or cannot be mapped. The device is not enabled for this: the BAR of a
    disabled device reads as all ones.
    """
    try:
        fd = os.open(resource, os.O_RDONLY)
    except OSError:
        return None
    try:
        # sysfs has no read() for a memory BAR, only mmap().
        with mmap.mmap(fd, HEADER_SIZE, mmap.MAP_SHARED, mmap.PROT_READ) as bar:
            page = bar[:HEADER_SIZE]
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
    if page.startswith(METADATA_MAGIC):
        return f"metadata {_name(page[METADATA_NAME])!r}"
    if page.startswith(SEGMENT_MAGIC):
        return f"segment of group {_name(page[SEGMENT_GROUP])!r}"
    return None


def _name(field: bytes) -> str:
    """Decode a NUL-terminated name; unprintable characters become "?", because a guest may have written the name."""
    text = field.split(b"\0")[0].decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text)
