# SPDX-License-Identifier: BSD-3-Clause
"""A plan that changes while a real VM runs: the VM gets the new objects, or `up` reports why it cannot."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import eal
from ivshmem.cli import cli
from ivshmem.hotplug.hotplug_vm import HotplugVm
from ivshmem.hotplug.qmp import Qmp
from ivshmem.plan.record import PlanRecord

pytestmark = [pytest.mark.vm, pytest.mark.filterwarnings("ignore::ivshmem.ExposureWarning")]

ZEROS = zlib.crc32(bytes(4096))  # content of a new zone
PLAN = """
file_prefix = "{prefix}"
no_huge = true
[groups.base]
[groups.further]
[rings.ping]
count = 256
group = "base"
[rings.pong]
count = 256
group = "base"
[rings.orders]
count = 256
group = "base"
{zones}
[metadata.vm0]
rings = ["ping", "pong", "orders"]
zones = [{names}]
[vms.web]
metadata = ["vm0"]
plug = "64M"
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words, catch_exceptions=False)


def given(vm: Any) -> list[str]:
    with Qmp(vm.qmp) as qmp:
        return sorted(one.id for one in HotplugVm(qmp, 5).devices())


def hear_added(vm: Any) -> dict[str, int]:
    """Return the guest's next report on its share, other than that a segment is pending."""
    while (told := vm.hear())["kind"] == "pending":
        pass
    assert told["kind"] == "added", str(told)
    found: dict[str, int] = told["content"]
    return found


@pytest.fixture
def up(runtime_dir: Path, prefix: str, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """`up(*zones)`: apply a plan with these zones, each a name and a group. Everything is removed after the test."""

    def write(*zones: tuple[str, str]) -> Result:
        text = "".join(f'[zones.{name}]\nlength = "4K"\ngroup = "{group}"\n' for name, group in zones)
        names = ", ".join(f'"{name}"' for name, _ in zones)
        plan = tmp_path / "plan.toml"
        plan.write_text(PLAN.format(prefix=prefix, zones=text, names=names))
        return run("up", str(plan), "--json")

    yield write
    run("down", "--file-prefix", prefix, "--force")


@pytest.fixture
def vm(up: Callable[..., Result], prefix: str, plug_guest: Callable[..., Any]) -> Iterator[Any]:
    """Start a VM with the options that `up` printed."""
    running = plug_guest("hotplug", qemu_args=json.loads(up().stdout)["vms"]["web"])
    assert running.hear()["kind"] == "ready"
    yield running
    with eal.init(["--no-pci"], file_prefix=prefix, no_huge=True):
        eal.ring_lookup("orders").enqueue(0)
    running.end()


def test_new_objects_reach_a_running_vm(vm: Any, up: Callable[..., Result]) -> None:
    before = given(vm)
    assert up(("near", "base")).exit_code == 0
    assert hear_added(vm) == {"near": ZEROS}
    assert given(vm) == before

    far = [("near", "base"), ("far", "further")]
    refused = up(*far)
    assert refused.exit_code == 1
    assert "metadata file 'vm0' cannot get an object in a further segment: it is held by qemu" in refused.stderr
    assert "to update a running VM, use `ivshmem plug vm0 --qmp SOCKET`" in refused.stderr

    assert run("plug", "vm0", "--qmp", str(vm.qmp)).exit_code == 0
    assert given(vm) == before
    assert up(*far).exit_code == 0
    assert hear_added(vm) == {"far": ZEROS}
    assert len(given(vm)) == len(before) + 1


def test_failed_up_leaves_the_vm_unchanged(vm: Any, up: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    before = given(vm)
    assert run("plug", "vm0", "--qmp", str(vm.qmp)).exit_code == 0
    with monkeypatch.context() as patch:
        had = []

        def save(*_: object) -> None:
            had.append(given(vm))
            raise eal.NoMemory("the disk is full")

        patch.setattr(PlanRecord, "save", save)
        failed = up(("far", "further"))
    assert (failed.exit_code, failed.stderr) == (1, "Error: the disk is full\n")
    assert len(had[0]) == len(before) + 1
    assert given(vm) == before
    assert up(("far", "further")).exit_code == 0
    assert hear_added(vm) == {"far": ZEROS}
