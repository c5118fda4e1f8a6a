# SPDX-License-Identifier: BSD-3-Clause
"""XML for libvirt, validated by libvirt's schema, and the option for Cloud Hypervisor."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner

import eal
import ivshmem
from ivshmem.cli import cli
from ivshmem.vmm import cloud_hypervisor, libvirt, qemu
from ivshmem.vmm.device import Device

MIB = 1 << 20
DOMAIN = """<domain type='kvm'>
<name>vm</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
{}</domain>
"""
ARG = f"{{{libvirt.QEMU_NAMESPACE}}}arg"


def domain(fragment: str, tmp_path: Path) -> ElementTree.Element:
    """Return a minimal domain with a fragment, validated by libvirt's schema."""
    path = tmp_path / "domain.xml"
    path.write_text(DOMAIN.format(fragment))
    run = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr + fragment
    return ElementTree.parse(path).getroot()


def parts(root: ElementTree.Element) -> tuple[dict[str, str | None], list[str]]:
    """Return the sizes of <shmem> elements in MiB by name, and the QEMU options."""
    shmem = {each.attrib["name"]: each.findtext("size[@unit='M']") for each in root.iterfind("devices/shmem")}
    return shmem, [each.attrib["value"] for each in root.iter(ARG)]


def device(**more: Any) -> Device:
    fields = {"id": "d", "uuid": UUID(int=1), "path": "/dev/shm/f", "size": 2 * MIB, "readonly": False}
    return Device(**{**fields, **more})


def test_schema_rejects_invalid_domain(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        domain("<devices><shmem/></devices>", tmp_path)


def test_domain_with_all_kinds_of_segments(primary: eal.Eal, tmp_path: Path) -> None:
    metadata = ivshmem.metadata_create("vm0")
    plain = eal.memzone_reserve("plain", 5 * MIB)
    metadata.add_memzone(plain)
    metadata.add_memzone(eal.memzone_reserve("seen", 64, group="seen"), readonly=True)
    metadata.add_memzone(eal.memzone_reserve("bound", 64, group="bound", socket_id=0))
    shmem, args = parts(domain(metadata.libvirt_xml(), tmp_path))
    assert shmem == {Path(plain.segment.path).name: "8"}
    _, seen, bound, own = metadata.devices()
    assert args == qemu.vm_args([seen, bound, own], place=qemu.place_of(metadata.uuid))


@pytest.mark.parametrize(
    ("changes", "expressible"),
    [
        ({}, True),
        ({"size": MIB}, True),
        ({"size": MIB // 2}, False),  # the unit of libvirt's size is MiB
        ({"readonly": True}, False),
        ({"socket_id": 0}, False),
        ({"path": "/dev/hugepages/f"}, False),
        ({"path": "/dev/shm/folder/f"}, False),
    ],
)
def test_shmem_only_for_devices_it_can_express(changes: dict[str, Any], expressible: bool, tmp_path: Path) -> None:
    shmem, args = parts(domain(libvirt.domain_xml([device(**changes)]), tmp_path))
    assert (len(shmem), len(args)) == ((1, 0) if expressible else (0, 6))


def test_no_devices_yield_empty_xml(tmp_path: Path) -> None:
    assert libvirt.domain_xml([]) == ""
    domain("", tmp_path)


@pytest.mark.parametrize("name", ["a&b<c>", "it's", '"quoted"', "a,b=c", "two  blanks", "ü", "]]>", "&amp;", "-->"])
def test_special_characters_in_names(runtime_dir: Path, tmp_path: Path, name: str) -> None:
    with eal.init(file_prefix=name, no_huge=True):
        metadata = ivshmem.metadata_create(name)
        metadata.add_memzone(eal.memzone_reserve("zone", 64))
        shmem, args = parts(domain(metadata.libvirt_xml(), tmp_path))
        segment, own = metadata.devices()
        assert shmem == {Path(segment.path).name: "2"}
        assert args == qemu.vm_args([own], place=qemu.place_of(metadata.uuid))


def test_tab_and_newline_in_path_are_preserved(tmp_path: Path) -> None:
    path = "/dev/huge\tpages\n/f"
    _, args = parts(domain(libvirt.domain_xml([device(path=path)]), tmp_path))
    assert f"mem-path={path}" in args[3]


def test_qemu_devices_in_domain_are_on_bridges(tmp_path: Path) -> None:
    devices = [device(id=f"d{n}", uuid=UUID(int=n), readonly=True) for n in range(20)]
    _, args = parts(domain(libvirt.domain_xml(devices), tmp_path))
    assert args == qemu.vm_args(devices)
    assert any(arg.startswith("pci-bridge,") for arg in args)


@pytest.mark.parametrize("path", ["/dev/shm/caf\udce9", "/dev/shm/\x01", "/dev/shm/\ufffe"])
def test_path_with_invalid_xml_character_raises_invalid(path: str) -> None:
    with pytest.raises(eal.Invalid, match=r"invalid in XML, got .*: choose another file_prefix"):
        libvirt.domain_xml([device(path=path)])


def test_command_prints_xml_with_each_segment_once(primary: eal.Eal, tmp_path: Path) -> None:
    made = [ivshmem.metadata_create(name) for name in ("vm0", "vm1")]
    zone = eal.memzone_reserve("zone", 64)
    for metadata in made:
        metadata.add_memzone(zone)
    run = CliRunner().invoke(cli, ["libvirt", "vm0"])
    assert (run.exit_code, run.stdout) == (0, made[0].libvirt_xml())
    both = json.loads(CliRunner().invoke(cli, ["libvirt", "vm0", "vm1", "--json"]).stdout)
    shmem, args = parts(domain(both, tmp_path))
    assert len(shmem) == 1  # the common segment
    assert [arg.partition(",")[0] for arg in args[1::2]] == [
        "pci-bridge",
        *["memory-backend-file", "ivshmem-plain"] * 2,
    ]
    missing = CliRunner().invoke(cli, ["libvirt", "vm2"])
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.startswith("Error: no metadata 'vm2' in")


# --- Cloud Hypervisor ---------------------------------------------------------------------------------------


def test_cloud_hypervisor_option_for_one_writable_device() -> None:
    assert cloud_hypervisor.args([device()], "label") == ["--ivshmem", "path=/dev/shm/f,size=2097152"]


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ([], "one ivshmem device per VM, not 0"),
        ([device(), device()], "one ivshmem device per VM, not 2"),
        ([device(readonly=True)], "is writable, but the VM must not write to /dev/shm/f"),
        ([device(path="/dev/shm/a,b")], "its option cannot represent '/dev/shm/a,b'"),
        ([device(path='/dev/shm/[a"')], "its option cannot represent"),
    ],
)
def test_cloud_hypervisor_rejects_unsupported_devices(devices: list[Device], reason: str) -> None:
    with pytest.raises(eal.Invalid, match="Use QEMU: ivshmem cmdline") as caught:
        cloud_hypervisor.args(devices, "label")
    assert reason in str(caught.value)


def test_cloud_hypervisor_command_rejects_metadata(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    run = CliRunner().invoke(cli, ["cloud-hypervisor", "vm0"])
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.splitlines() == [
        "Error: Cloud Hypervisor does not support metadata 'vm0': it supports one ivshmem device per VM, not 2; "
        f"its device is writable, but the VM must not write to {metadata.path}. Use QEMU: ivshmem cmdline"
    ]
