# SPDX-License-Identifier: BSD-3-Clause
"""Loading plans: every fault is reported with its key path, a syntax error with line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import eal
from eal.metadata.records import Kind
from ivshmem.plan.load import load, load_prefix
from ivshmem.plan.reader import Fault, key_path
from ivshmem.plan.schema import Faults

MIB = 1 << 20


def faults(text: str, tmp_path: Path) -> list[Fault]:
    """Return the faults of a plan that consists of a valid file_prefix and this text."""
    path = tmp_path / "plan.toml"
    path.write_text(f'file_prefix = "p"\n{text}')
    try:
        load(path)
    except Faults as error:
        return error.faults
    return []


def fault(text: str, tmp_path: Path) -> Fault:
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


def test_load_returns_all_values_of_a_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(f'file_prefix = "video"{WHOLE}')
    plan = load(tmp_path / "plan.toml")
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


def test_load_reports_every_fault_at_once(tmp_path: Path) -> None:
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
    found = faults(text, tmp_path)
    assert [(one.path, one.reason) for one in found if one.path not in ("rings.rx.elem_size", "rings.rx.count")] == [
        ("zones.z.group", "the plan has no group 'nowhere'; known: 'default'"),
        ("rings.tx.count", "must be an integer, got 'many'"),
        ("rings.tx.flgas", "unknown key; did you mean 'flags'?"),
        ("vms.v.metadata", "the plan has no metadata 'vm0'; known: none"),
    ]
    by_path = {one.path: one.reason for one in found}
    assert len(found) == 6
    assert "100" in by_path["rings.rx.count"]
    assert "RingFlag.EXACT_SZ" in by_path["rings.rx.count"]
    assert "multiple of 4" in by_path["rings.rx.elem_size"]


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("isolated = 1", "isolated", "must be true or false, got 1"),
        ("no_huge = 'yes'", "no_huge", "must be true or false, got 'yes'"),
        ("no_hug = true", "no_hug", "unknown key; did you mean 'no_huge'?"),
        ("huge_dir = '/dev/shm'", "huge_dir", "/dev/shm"),
        ("huge_dir = '/nowhere'", "huge_dir", "mount"),
        ("rings = 3", "rings", "must be a table of tables, got 3"),
        ("rings.rx = 3", "rings.rx", "must be a table, got 3"),
        ("[groups.g]\nsocket_id = 99", "groups.g.socket_id", "99"),
        ("[groups.g]\nuser = 'nosuch'", "groups.g.user", "user 'nosuch'"),
        ("[groups.g]\ngroup = 'nosuch'", "groups.g.group", "group 'nosuch'"),
        ("[groups.g]\nuser = true", "groups.g.user", "must be a name or a number, got True"),
        ("[groups.g]\nmode = 0o4777", "groups.g.mode", "0o4777"),
        ("[groups.g]\npage_size = '3M'", "groups.g.page_size", "3145728"),
        (
            "[groups.g]\nsize = '3M'",
            "groups.g.size",
            "must be a power of two >= 8192 (PCI BAR requirement), got 3145728",
        ),
        (f"[groups.{'g' * 40}]", f"groups.{'g' * 40}", "group name"),
        ("[zones.z]", "zones.z", "must have either `length` in bytes, or `dtype` and `shape` of an array"),
        ("[zones.z]\nlength=1\ndtype='f4'", "zones.z", "must have either `length` in bytes, or `dtype`"),
        ("[zones.z]\nlength='1X'\nalign=64", "zones.z.length", "or a string such as '64M' or '1G', got '1X'"),
        ("[zones.z]\nlength=0", "zones.z.length", "must be from 1 to 2**47 - 1 bytes, got 0"),
        ("[zones.z]\nlength=8\nshape=[2]", "zones.z.shape", "is only allowed with `dtype`"),
        ("[zones.z]\nlength=8\nalign=3", "zones.z.align", "3"),
        (
            "[zones.z]\ndtype='nonsense'",
            "zones.z.dtype",
            "must be a numpy dtype without Python objects, got 'nonsense'",
        ),
        ("[zones.z]\ndtype='O'", "zones.z.dtype", "must be a numpy dtype without Python objects, got 'O'"),
        ("[zones.z]\ndtype='V0'", "zones.z.dtype", "must have an item size of at least 1 byte, got 'V0'"),
        ("[zones.z]\ndtype='f4'\nshape=[0]", "zones.z.shape", "must be a positive integer or a list of them, got [0]"),
        ("[zones.z]\ndtype='f4'\nshape='2'", "zones.z.shape", "must be a positive integer or a list of them, got '2'"),
        ("[zones.RG_z]\nlength=8", "zones.RG_z", "RG_"),
        ("[rings.r]", "rings.r.count", "is missing"),
        ("[rings.r]\ncount = true", "rings.r.count", "must be an integer, got True"),
        ("[rings.r]\ncount = 1.5", "rings.r.count", "must be an integer, got 1.5"),
        ("[rings.r]\ncount = -2", "rings.r.count", "-2"),
        ("[rings.r]\ncount = 8\nflags=['SP']", "rings.r.flags", "unknown flag 'SP'; known: "),
        ("[rings.r]\ncount = 8\nflags=['SP_ENQ', 'MP_HTS_ENQ']", "rings.r.flags", "0x21"),
        (f"[rings.{'r' * 29}]\ncount = 8", f"rings.{'r' * 29}", "ring name "),
        (f"[rings.{'r' * 40}]\ncount = 8", f"rings.{'r' * 40}", "ring name "),
        ("[rings.'a/b']\ncount = 8", 'rings."a/b"', "ring name"),
        ("[mempools.m]\nn = 8", "mempools.m.elt_size", "is missing"),
        ("[mempools.m]\nn = 8\nelt_size = 8\ncache_size=900", "mempools.m.cache_size", "900"),
        ("[pktmbuf_pools.m]\nn = 8\ndata_room = 70000", "pktmbuf_pools.m.data_room", "70000"),
        ("[pktmbuf_pools.m]\nn = 8\nprivate_size = 3", "pktmbuf_pools.m.private_size", "3"),
        ("[pktmbuf_pools.m]\nn = 8\ncache_size = 900", "pktmbuf_pools.m.cache_size", "900"),
        (
            "[mempools.m]\nn=8\nelt_size=8\n[pktmbuf_pools.m]\nn=8",
            "pktmbuf_pools.m",
            "name is already used by mempools.m",
        ),
        ("[metadata.m]\nrings = 'r'", "metadata.m.rings", "must be a list of names, got 'r'"),
        ("[metadata.m]\nrings = [1]", "metadata.m.rings", "must be a list of names, got [1]"),
        ("[metadata.m]\nreadonly = 1", "metadata.m.readonly", "must be a table, got 1"),
        ("[metadata.m]\ncapacity = 5000", "metadata.m.capacity", "from 16384 to 2**46 bytes, got 5000"),
        ("[vms.v]", "vms.v.metadata", "is missing"),
        ("[vms.v]\nmetadata = []\nplug = '1K'", "vms.v.plug", "'1K'"),
    ],
)
def test_load_with_one_fault_reports_its_key_path(text: str, path: str, reason: str, tmp_path: Path) -> None:
    found = fault(text, tmp_path)
    assert found.path == path
    assert reason in found.reason


@pytest.mark.parametrize("text", ["", "file_prefix = 3", "file_prefix = ''", "file_prefix = 'a/b'"])
def test_load_without_valid_file_prefix_raises_faults(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    for function in (load, load_prefix):
        with pytest.raises(Faults, match="file_prefix: "):
            function(path)


def test_metadata_that_lists_unknown_objects_is_a_fault(tmp_path: Path) -> None:
    text = "[rings.rx]\ncount = 8\n[zones.z]\nlength = 'x'\n[metadata.m]\nrings = ['xr', 'rx', 'rx']\nzones = ['z']"
    assert list(map(str, faults(text, tmp_path))) == [
        "zones.z.length: must be a size in bytes, or a string such as '64M' or '1G', got 'x'",
        "metadata.m.rings: the plan has no ring 'xr'; known: 'rx'",
        "metadata.m.rings: 'rx' is listed twice",
    ]


def test_group_listed_with_both_accesses_is_a_fault(tmp_path: Path) -> None:
    text = "[rings.a]\ncount = 8\n[rings.b]\ncount = 8\n[metadata.m]\nrings = ['a']\nreadonly = { rings = ['b'] }"
    assert fault(text, tmp_path) == Fault(
        "metadata.m", "group 'default' is listed both read-only and writable: put read-only objects into another group"
    )
    same = "[rings.a]\ncount = 8\n[metadata.m]\nrings = ['a']\nreadonly = { rings = ['a'] }"
    assert fault(same, tmp_path) == Fault(
        "metadata.m.readonly.rings", "'a' is also listed as writable in 'm': remove one entry"
    )


@pytest.mark.parametrize("where", ["isolated = true\n{}", "{}isolated = true"])
def test_isolated_metadata_that_exposes_an_object_is_a_fault(where: str, tmp_path: Path) -> None:
    text = where.format("[rings.a]\ncount = 8\n[mempools.b]\nn = 8\nelt_size = 8\n[metadata.m]\nrings = ['a']\n")
    assert str(fault(text, tmp_path)) == (
        "metadata.m: isolated, but exposes mempools.b, which is in group 'default' and not listed: put mempools.b into "
        "another group, or remove `isolated`"
    )
    apart = text.replace("elt_size = 8", "elt_size = 8\ngroup = 'g'") + "\n[groups.g]"
    assert faults(apart, tmp_path) == []
    listed = text.replace("rings = ['a']", "rings = ['a']\nmempools = ['b']")
    assert faults(listed, tmp_path) == []


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = = 2\n", r"plan.toml is not valid TOML: Invalid value \(at line 2, column 5\)"),
        (b"[rings.rx\ncount = 8", r"\(at line 1, column 10\)"),
        (b"a = 1\na = 2\n", r"\(at line 2, column 6\)"),
        (b"a = 1\nb = 'caf\xe9'\n", "is not valid TOML: line 2 is not UTF-8"),
    ],
)
def test_load_of_invalid_toml_reports_line_and_column(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(content)
    for function in (load, load_prefix):
        with pytest.raises(eal.Invalid, match=message):
            function(tmp_path / "plan.toml")


@pytest.mark.parametrize(("make", "message"), [(None, "No such file"), (Path.mkdir, "Is a directory")])
def test_load_of_unreadable_file_raises_not_found(make: Any, message: str, tmp_path: Path) -> None:
    if make is not None:
        make(tmp_path / "plan.toml")
    with pytest.raises(eal.NotFound, match=f"cannot read the plan .*plan.toml: {message}"):
        load(tmp_path / "plan.toml")


def test_load_prefix_ignores_faults_of_other_keys(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("file_prefix = 'x'\nfrobnicate = 1\n[rings.r]\ncount = 3\n")
    assert load_prefix(tmp_path / "plan.toml") == "x"


def test_key_path_is_quoted_as_in_toml() -> None:
    assert key_path("rings", "rx-1_A", "count") == "rings.rx-1_A.count"
    assert key_path("rings", 'a b."ü"', "count") == 'rings."a b.\\"ü\\"".count'
