# SPDX-License-Identifier: BSD-3-Clause
"""libvirt and Cloud Hypervisor: what they are given, checked by libvirt's own schema."""

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
    """A minimal domain with a fragment in it, which libvirt's schema allows."""
    path = tmp_path / "domain.xml"
    path.write_text(DOMAIN.format(fragment))
    run = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr + fragment
    return ElementTree.parse(path).getroot()


def parts(root: ElementTree.Element) -> tuple[dict[str, str | None], list[str]]:
    """The sizes of <shmem> in MiB by their names, and QEMU's options."""
    shmem = {each.attrib["name"]: each.findtext("size[@unit='M']") for each in root.iterfind("devices/shmem")}
    return shmem, [each.attrib["value"] for each in root.iter(ARG)]


def device(**more: Any) -> Device:
    fields = {"id": "d", "uuid": UUID(int=1), "path": "/dev/shm/f", "size": 2 * MIB, "readonly": False}
    return Device(**{**fields, **more})


def test_the_schema_is_not_content_with_anything(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        domain("<devices><shmem/></devices>", tmp_path)


def test_a_metadata_in_a_domain(primary: eal.Eal, tmp_path: Path) -> None:
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
    ("more", "is_one"),
    [
        ({}, True),
        ({"size": MIB}, True),
        ({"size": MIB // 2}, False),  # libvirt counts MiB
        ({"readonly": True}, False),
        ({"socket_id": 0}, False),
        ({"path": "/dev/hugepages/f"}, False),
        ({"path": "/dev/shm/folder/f"}, False),
    ],
)
def test_what_shmem_can_express(more: dict[str, Any], is_one: bool, tmp_path: Path) -> None:
    shmem, args = parts(domain(libvirt.domain_xml([device(**more)]), tmp_path))
    assert (len(shmem), len(args)) == ((1, 0) if is_one else (0, 6))


def test_nothing_for_nothing(tmp_path: Path) -> None:
    assert libvirt.domain_xml([]) == ""
    domain("", tmp_path)


@pytest.mark.parametrize("name", ["a&b<c>", "it's", '"quoted"', "a,b=c", "two  blanks", "ü", "]]>", "&amp;", "-->"])
def test_odd_names(runtime_dir: Path, tmp_path: Path, name: str) -> None:
    with eal.init(file_prefix=name, no_huge=True):
        metadata = ivshmem.metadata_create(name)
        metadata.add_memzone(eal.memzone_reserve("zone", 64))
        shmem, args = parts(domain(metadata.libvirt_xml(), tmp_path))
        segment, own = metadata.devices()
        assert shmem == {Path(segment.path).name: "2"}
        assert args == qemu.vm_args([own], place=qemu.place_of(metadata.uuid))


def test_a_tab_in_a_path_comes_through(tmp_path: Path) -> None:
    path = "/dev/huge\tpages\n/f"
    _, args = parts(domain(libvirt.domain_xml([device(path=path)]), tmp_path))
    assert f"mem-path={path}" in args[3]


def test_devices_are_on_bridges(tmp_path: Path) -> None:
    devices = [device(id=f"d{n}", uuid=UUID(int=n), readonly=True) for n in range(20)]
    _, args = parts(domain(libvirt.domain_xml(devices), tmp_path))
    assert args == qemu.vm_args(devices)
    assert any(arg.startswith("pci-bridge,") for arg in args)


@pytest.mark.parametrize("path", ["/dev/shm/caf\udce9", "/dev/shm/\x01", "/dev/shm/\ufffe"])
def test_a_path_that_xml_cannot_carry(path: str) -> None:
    with pytest.raises(eal.Invalid, match="XML cannot carry: choose another file_prefix"):
        libvirt.domain_xml([device(path=path)])


def test_the_command(primary: eal.Eal, tmp_path: Path) -> None:
    made = [ivshmem.metadata_create(name) for name in ("vm0", "vm1")]
    zone = eal.memzone_reserve("zone", 64)
    for metadata in made:
        metadata.add_memzone(zone)
    run = CliRunner().invoke(cli, ["libvirt", "vm0"])
    assert (run.exit_code, run.stdout) == (0, made[0].libvirt_xml())
    both = json.loads(CliRunner().invoke(cli, ["libvirt", "vm0", "vm1", "--json"]).stdout)
    shmem, args = parts(domain(both, tmp_path))
    assert len(shmem) == 1  # once
    assert [arg.partition(",")[0] for arg in args[1::2]] == [
        "pci-bridge",
        *["memory-backend-file", "ivshmem-plain"] * 2,
    ]
    missing = CliRunner().invoke(cli, ["libvirt", "vm2"])
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.startswith("Error: there is no metadata 'vm2'")


# --- Cloud Hypervisor ---------------------------------------------------------------------------------------


def test_cloud_hypervisor_takes_one_writable_file() -> None:
    assert cloud_hypervisor.args([device()], "it") == ["--ivshmem", "path=/dev/shm/f,size=2097152"]


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ([], "one ivshmem device for a VM, and this takes 0"),
        ([device(), device()], "one ivshmem device for a VM, and this takes 2"),
        ([device(readonly=True)], "always writable, and the VM must not write to /dev/shm/f"),
        ([device(path="/dev/shm/a,b")], "its option cannot carry '/dev/shm/a,b'"),
        ([device(path='/dev/shm/[a"')], "its option cannot carry"),
    ],
)
def test_what_cloud_hypervisor_cannot_be_given(devices: list[Device], reason: str) -> None:
    with pytest.raises(eal.Invalid, match="Use QEMU: ivshmem cmdline") as caught:
        cloud_hypervisor.args(devices, "it")
    assert reason in str(caught.value)


def test_no_metadata_can_be_given_to_cloud_hypervisor(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    run = CliRunner().invoke(cli, ["cloud-hypervisor", "vm0"])
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.splitlines() == [
        "Error: Cloud Hypervisor cannot be given metadata 'vm0': it has one ivshmem device for a VM, and this takes 2; "
        f"its device is always writable, and the VM must not write to {metadata.path}. Use QEMU: ivshmem cmdline"
    ]
