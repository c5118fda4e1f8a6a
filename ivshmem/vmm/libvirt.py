# SPDX-License-Identifier: BSD-3-Clause
"""libvirt: elements of a domain's XML for the devices of a VM."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from xml.sax.saxutils import quoteattr

from eal.errors import Invalid
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.text.sizes import MIB
from ivshmem.vmm import qemu
from ivshmem.vmm.device import Device

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
SHMEM_DIR = PurePath("/dev/shm")  # the directory of the files of <shmem>
_INVALID_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def is_shmem(device: Device) -> bool:
    """Return whether <shmem> can express a device: a writable file in /dev/shm, in MiB, on any NUMA node."""
    return (
        PurePath(device.path).parent == SHMEM_DIR
        and not device.readonly
        and device.socket_id == SOCKET_ID_ANY
        and device.size % MIB == 0
    )


def domain_xml(devices: Sequence[Device], place: int = 0) -> str:
    """Return children of a <domain type='kvm'> (or qemu).

    <devices> has a <shmem> for each device that it can express; <qemu:commandline> has QEMU options for the others,
    with their bridge at `place` (see `qemu.vm_args`). Raise Invalid for a path that XML cannot represent.
    """
    for device in devices:
        if _INVALID_IN_XML.search(device.path):
            raise Invalid(
                f"path must not have characters that are invalid in XML, got {device.path!r}: choose another "
                "file_prefix or directory"
            )
    plain = [device for device in devices if is_shmem(device)]
    args = qemu.vm_args([device for device in devices if not is_shmem(device)], place=place)
    lines = []
    if plain:
        lines += ["<devices>", *(line for device in plain for line in _shmem(device)), "</devices>"]
    if args:
        lines += [f"<qemu:commandline xmlns:qemu={quoteattr(QEMU_NAMESPACE)}>"]
        lines += [f"  <qemu:arg value={quoteattr(arg)}/>" for arg in args]
        lines += ["</qemu:commandline>"]
    return "".join(f"{line}\n" for line in lines)


def _shmem(device: Device) -> list[str]:
    return [
        f"  <shmem name={quoteattr(PurePath(device.path).name)}>",
        "    <model type='ivshmem-plain'/>",
        f"    <size unit='M'>{device.size // MIB}</size>",
        "  </shmem>",
    ]
