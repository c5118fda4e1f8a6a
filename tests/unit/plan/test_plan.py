# SPDX-License-Identifier: BSD-3-Clause
"""Plans as they are read: every fault at once, each with its key path, and syntax errors with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import eal
from eal.metadata.records import Kind
from ivshmem.plan import schema as plans
from ivshmem.plan.reader import key_path

MIB = 1 << 20


def faults(text: str, tmp_path: Path) -> list[str]:
    """What is wrong with a plan that has a file_prefix and this."""
    path = tmp_path / "plan.toml"
    path.write_text(f'file_prefix = "p"\n{text}')
    try:
        plans.load(path)
    except plans.Faults as error:
        return error.faults
    return []


def fault(text: str, tmp_path: Path) -> str:
    (only,) = faults(text, tmp_path)
    return only


WHOLE = """
no_huge = true
isolated = true
[groups.vm]
page_size = "4K"
socket_id = 0
user = "root"
group = 0
mode = 0o640
size = "4M"
[groups.seen]
[zones.settings]
dtype = [["width", "u4"], ["title", "U16"], ["at", "f8", [3]]]
shape = [2, 3]
group = "seen"
[zones."raw data"]
length = 4096
align = 4096
[rings.rx]
count = 1000
elem_size = 16
flags = ["SP_ENQ", "SC_DEQ", "EXACT_SZ"]
group = "vm"
[mempools.frames]
n = 8
elt_size = "1M"
cache_size = 4
flags = ["DEBUG"]
[pktmbuf_pools.packets]
n = 8
data_room = "4K"
private_size = 8
group = "vm"
[metadata.vm0]
rings = ["rx"]
mempools = ["packets"]
readonly = { zones = ["settings"] }
mode = 0o644
[vms.web]
metadata = ["vm0"]
plug = "1G"
"""


def test_a_whole_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(f'file_prefix = "video"{WHOLE}')
    plan = plans.load(tmp_path / "plan.toml")
    assert (plan.file_prefix, plan.no_huge, plan.huge_dir) == ("video", True, None)
    vm = plan.groups["vm"]
    assert (vm.page_size, vm.socket_id, vm.user, vm.user_group, vm.mode, vm.size, vm.owned) == (
        *(4096, 0, "root", 0, 0o640, 4 * MIB),
        True,
    )
    assert sorted(plan.groups) == ["default", "seen", "vm"]
    lengths = {key[1]: (item.group, item.length) for key, item in plan.items.items()}
    assert lengths["settings"] == ("seen", 6 * (4 + 64 + 24))
    assert lengths["raw data"] == ("default", 4096)
    assert lengths["rx"][1] > 1000 * 16
    assert plan.items[Kind.MEMZONE, "raw data"].where == 'zones."raw data"'
    assert plan.metadata["vm0"].objects == {
        (Kind.RING, "rx"): False,
        (Kind.MEMPOOL, "packets"): False,
        (Kind.MEMZONE, "settings"): True,
    }
    assert plan.metadata["vm0"].isolated
    assert (plan.vms["web"].metadata, plan.vms["web"].plug) == (("vm0",), "1G")


def test_every_fault_at_once(tmp_path: Path) -> None:
    text = """
[rings.rx]
count = 100
elem_size = 3
[rings.tx]
count = "many"
flgas = []
[zones.z]
group = "nowhere"
length = 1
[vms.v]
metadata = ["vm0"]
"""
    assert faults(text, tmp_path) == [
        "zones.z.group: the plan has no group 'nowhere'; there are 'default'",
        "rings.rx.elem_size: 3 is not a multiple of 4",
        "rings.rx.count: 100 is not a power of two: use one, or RingFlag.EXACT_SZ",
        "rings.tx.count: 'many' is not a whole number",
        "rings.tx.flgas: unknown key; did you mean 'flags'?",
        "vms.v.metadata: the plan has no metadata 'vm0'; there are none",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("isolated = 1", "isolated: 1 is not true or false"),
        ("no_huge = 'yes'", "no_huge: 'yes' is not true or false"),
        ("no_hug = true", "no_hug: unknown key; did you mean 'no_huge'?"),
        ("huge_dir = '/dev/shm'", "huge_dir: /dev/shm is not on a hugetlbfs"),
        ("huge_dir = '/nowhere'", "huge_dir: /nowhere is not on a hugetlbfs. To mount one: "),
        ("rings = 3", "rings: 3 is not a table of tables"),
        ("rings.rx = 3", "rings.rx: a table is expected"),
        ("[groups.g]\nsocket_id = 99", "groups.g.socket_id: must be a NUMA node with memory (0"),
        ("[groups.g]\nuser = 'nosuch'", "groups.g.user: this system has no user 'nosuch'"),
        ("[groups.g]\ngroup = 'nosuch'", "groups.g.group: this system has no group 'nosuch'"),
        ("[groups.g]\nuser = true", "groups.g.user: True is neither a name nor a number"),
        ("[groups.g]\nmode = 0o4777", "groups.g.mode: must be permission bits that include 0o600"),
        ("[groups.g]\npage_size = '3M'", "groups.g.page_size: no writable hugetlbfs has free pages of 3145728 bytes"),
        ("[groups.g]\nsize = '3M'", "groups.g.size: 3145728 is not a power of two"),
        (f"[groups.{'g' * 40}]", f"groups.{'g' * 40}: "),
        ("[zones.z]", "zones.z: give either its length in bytes, or dtype and shape of an array"),
        ("[zones.z]\nlength=1\ndtype='f4'", "zones.z: give either its length in bytes, or dtype"),
        ("[zones.z]\nlength='1X'\nalign=64", "zones.z.length: '1X' is not a size"),
        ("[zones.z]\nlength=0", "zones.z.length: 0 bytes cannot be reserved"),
        ("[zones.z]\nlength=8\nshape=[2]", "zones.z.shape: goes with dtype"),
        ("[zones.z]\nlength=8\nalign=3", "zones.z.align: 3: a power of two"),
        ("[zones.z]\ndtype='nonsense'", "zones.z.dtype: 'nonsense' is none that numpy knows"),
        ("[zones.z]\ndtype='O'", "zones.z.dtype: 'O' is none that numpy knows, or has objects"),
        ("[zones.z]\ndtype='f4'\nshape=[0]", "zones.z.shape: [0] is not a list of whole numbers above 0"),
        ("[zones.z]\ndtype='f4'\nshape='2'", "zones.z.shape: '2' is not a list of whole numbers"),
        ("[zones.RG_z]\nlength=8", "zones.RG_z: RG_ and MP_ are kept"),
        ("[rings.r]", "rings.r.count: is missing"),
        ("[rings.r]\ncount = true", "rings.r.count: True is not a whole number"),
        ("[rings.r]\ncount = 1.5", "rings.r.count: 1.5 is not a whole number"),
        ("[rings.r]\ncount = -2", "rings.r.count: -2 is out of range"),
        ("[rings.r]\ncount = 8\nflags=['SP']", "rings.r.flags: no flag 'SP'; there are "),
        ("[rings.r]\ncount = 8\nflags=['SP_ENQ', 'MP_HTS_ENQ']", "rings.r.flags: 0x21 are unknown or contradict"),
        (f"[rings.{'r' * 29}]\ncount = 8", f"rings.{'r' * 29}: ring name "),
        ("[rings.'a/b']\ncount = 8", 'rings."a/b": ring name'),
        ("[mempools.m]\nn = 8", "mempools.m.elt_size: is missing"),
        ("[mempools.m]\nn = 8\nelt_size = 8\ncache_size=900", "mempools.m.cache_size: 900: at most 512"),
        ("[pktmbuf_pools.m]\nn = 8\ndata_room = 70000", "pktmbuf_pools.m.data_room: "),
        ("[mempools.m]\nn=8\nelt_size=8\n[pktmbuf_pools.m]\nn=8", "pktmbuf_pools.m: mempools.m has that name already"),
        ("[metadata.m]\nrings = 'r'", "metadata.m.rings: 'r' is not a list of names"),
        ("[metadata.m]\nrings = [1]", "metadata.m.rings: [1] is not a list of names"),
        ("[metadata.m]\nreadonly = 1", "metadata.m.readonly: a table is expected"),
        ("[metadata.m]\ncapacity = 5000", "metadata.m.capacity: 5000 is not a power of two"),
        ("[vms.v]", "vms.v.metadata: is missing"),
        ("[vms.v]\nmetadata = []\nplug = '1K'", "vms.v.plug: '1K': a size such as '1G'"),
    ],
)
def test_a_fault_and_its_key_path(text: str, message: str, tmp_path: Path) -> None:
    found = fault(text, tmp_path)
    assert found.startswith(message), found


@pytest.mark.parametrize("text", ["", "file_prefix = 3", "file_prefix = ''", "file_prefix = 'a/b'"])
def test_a_plan_has_a_file_prefix(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    for load in (plans.load, plans.load_prefix):
        with pytest.raises(plans.Faults, match="file_prefix: "):
            load(path)


def test_what_a_metadata_names_has_to_be_there(tmp_path: Path) -> None:
    text = "[rings.rx]\ncount = 8\n[zones.z]\nlength = 'x'\n[metadata.m]\nrings = ['xr', 'rx', 'rx']\nzones = ['z']"
    assert faults(text, tmp_path) == [
        "zones.z.length: 'x' is not a size: bytes, or text such as '64M' or '1G'",
        "metadata.m.rings: the plan has no 'xr' there; there are 'rx'",
        "metadata.m.rings: 'rx' stands there twice",
    ]


def test_one_group_is_shared_one_way(tmp_path: Path) -> None:
    text = "[rings.a]\ncount = 8\n[rings.b]\ncount = 8\n[metadata.m]\nrings = ['a']\nreadonly = { rings = ['b'] }"
    assert fault(text, tmp_path) == (
        "metadata.m: group 'default' would be both read-only and writable: put what is read-only in a group of its own"
    )
    same = "[rings.a]\ncount = 8\n[metadata.m]\nrings = ['a']\nreadonly = { rings = ['a'] }"
    assert fault(same, tmp_path) == "metadata.m.readonly.rings: 'a' stands in 'm' as writable, too: leave one out"


@pytest.mark.parametrize("where", ["isolated = true\n{}", "{}isolated = true"])
def test_isolation(where: str, tmp_path: Path) -> None:
    text = where.format("[rings.a]\ncount = 8\n[mempools.b]\nn = 8\nelt_size = 8\n[metadata.m]\nrings = ['a']\n")
    assert fault(text, tmp_path) == (
        "metadata.m: mempools.b would be exposed: it is in group 'default' too, and not in the metadata; put it in "
        "another group, or leave isolated out"
    )
    apart = text.replace("elt_size = 8", "elt_size = 8\ngroup = 'g'") + "\n[groups.g]"
    assert faults(apart, tmp_path) == []
    with_it = text.replace("rings = ['a']", "rings = ['a']\nmempools = ['b']")
    assert faults(with_it, tmp_path) == []


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = = 2\n", r"plan.toml is no TOML: Invalid value \(at line 2, column 5\)"),
        (b"[rings.rx\ncount = 8", r"\(at line 1, column 10\)"),
        (b"a = 1\na = 2\n", r"\(at line 2, column 6\)"),
        (b"a = 1\nb = 'caf\xe9'\n", "is no TOML: line 2 is not UTF-8"),
    ],
)
def test_what_is_no_toml(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(content)
    for load in (plans.load, plans.load_prefix):
        with pytest.raises(eal.Invalid, match=message):
            load(tmp_path / "plan.toml")


@pytest.mark.parametrize(("make", "message"), [(None, "No such file"), (Path.mkdir, "Is a directory")])
def test_a_file_that_cannot_be_read(make: Any, message: str, tmp_path: Path) -> None:
    if make is not None:
        make(tmp_path / "plan.toml")
    with pytest.raises(eal.NotFound, match=f"cannot read the plan .*plan.toml: {message}"):
        plans.load(tmp_path / "plan.toml")


def test_down_needs_the_prefix_alone(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("file_prefix = 'x'\nfrobnicate = 1\n[rings.r]\ncount = 3\n")
    assert plans.load_prefix(tmp_path / "plan.toml") == "x"


def test_key_paths_are_as_toml_writes_them() -> None:
    assert key_path("rings", "rx-1_A", "count") == "rings.rx-1_A.count"
    assert key_path("rings", 'a b."ü"', "count") == 'rings."a b.\\"ü\\"".count'
