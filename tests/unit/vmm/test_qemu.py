# SPDX-License-Identifier: BSD-3-Clause
"""QEMU command lines as text: exact options, ids, quoting, bridges, and what is refused before QEMU sees it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eal
import ivshmem
from ivshmem.vmm import qemu
from ivshmem.vmm.device import Device

MIB = 1 << 20
ID = re.compile(r"[A-Za-z][A-Za-z0-9\-._]*")  # what QEMU takes as an id


def device(number: int = 0, **changes: Any) -> Device:
    fields = {
        "id": f"dev{number}",
        "uuid": UUID(int=number),
        "path": f"/dev/shm/file{number}",
        "size": 2 * MIB,
        "readonly": False,
    }
    return Device(**{**fields, **changes})


def devices(count: int) -> list[Device]:
    return [device(number) for number in range(count)]


def options(args: list[str]) -> list[tuple[str, dict[str, str]]]:
    """Pairs of an option and its value taken apart as QEMU does: at commas, two of which stand for one."""
    assert len(args) % 2 == 0
    found = []
    for name, value in zip(args[::2], args[1::2], strict=True):
        first, *rest = (part.replace("\0", ",") for part in value.replace(",,", "\0").split(","))
        found.append((name, {"": first, **dict(part.split("=", 1) for part in rest)}))
    return found


def ids_of(args: list[str]) -> list[str]:
    return [option["id"] for _, option in options(args)]


# --- one device ---------------------------------------------------------------------------------------------


def test_a_device_in_full() -> None:
    assert qemu.device_args(device(7), "bus=b") == [
        "-object",
        "memory-backend-file,id=dev7,size=2097152,mem-path=/dev/shm/file7,share=on",
        "-device",
        "ivshmem-plain,id=dev7-dev,memdev=dev7,bus=b",
    ]


def test_a_read_only_device_bound_to_a_node() -> None:
    args = qemu.device_args(device(1, readonly=True, socket_id=3, path="/huge,1G/f", size=1 << 30), "bus=b,addr=0x1")
    assert args == [
        "-object",
        "memory-backend-file,id=dev1,size=1073741824,mem-path=/huge,,1G/f,share=on,readonly=on,host-nodes=3,policy=bind",
        "-device",
        "ivshmem-plain,id=dev1-dev,memdev=dev1,bus=b,addr=0x1",
    ]


@pytest.mark.parametrize(
    ("text", "quoted"), [("", ""), ("plain", "plain"), (",", ",,"), ("a,,b", "a,,,,b"), ("a=b c'\"\\", "a=b c'\"\\")]
)
def test_a_comma_is_written_twice(text: str, quoted: str) -> None:
    assert qemu.quote(text) == quoted


@given(path=st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1))
def test_any_path_comes_through(path: str) -> None:
    args = qemu.device_args(device(path=path), "bus=b")
    assert [option.get("mem-path") for _, option in options(args)] == [path, None]
    assert shlex.split(shlex.join(args)) == args


# --- a metadata ---------------------------------------------------------------------------------------------


@pytest.fixture
def metadata(primary: eal.Eal) -> ivshmem.Metadata:
    """Two writable segments and a read-only one."""
    made = ivshmem.metadata_create("vm0")
    made.add_memzone(eal.memzone_reserve("zone", 64))
    made.add_ring(eal.ring_create("ring", 8, group="rings"))
    made.add_memzone(eal.memzone_reserve("seen", 64, group="seen"), readonly=True)
    return made


def test_the_options_of_a_metadata(metadata: ivshmem.Metadata) -> None:
    mine = metadata.uuid.hex[:12]
    expected = ["-device", "pci-bridge,id=ivs-bus0,chassis_nr=100,shpc=off,addr=0x1c"]
    for slot, (segment, more) in enumerate(zip(eal.segments(), ("", "", ",readonly=on"), strict=True), start=1):
        name = f"ivs-{mine}-{segment.uuid.hex[:12]}"
        expected += [
            "-object",
            f"memory-backend-file,id={name},size={segment.size},mem-path={segment.path},share=on{more}",
            "-device",
            f"ivshmem-plain,id={name}-dev,memdev={name},bus=ivs-bus0,addr={slot:#x}",
        ]
    assert metadata.qemu_args() == [
        *expected,
        "-object",
        f"memory-backend-file,id=ivs-{mine},size=1048576,mem-path={metadata.path},share=on,readonly=on",
        "-device",
        f"ivshmem-plain,id=ivs-{mine}-dev,memdev=ivs-{mine},bus=ivs-bus0,addr=0x4",
    ]


def test_asking_changes_nothing(metadata: ivshmem.Metadata) -> None:
    before = [Path(path).read_bytes() for path in (metadata.path, *(s.path for s in eal.segments()))]
    first = (
        metadata.qemu_args(),
        metadata.cmdline(),
        ivshmem.qemu_args(metadata),
        ivshmem.qemu_args(metadata, plug="1G"),
    )
    first[0].clear()  # the caller's own list
    again = (
        metadata.qemu_args(),
        metadata.cmdline(),
        ivshmem.qemu_args(metadata),
        ivshmem.qemu_args(metadata, plug="1G"),
    )
    assert again[1:] == first[1:]
    assert shlex.split(again[1]) == again[0]
    assert [Path(path).read_bytes() for path in (metadata.path, *(s.path for s in eal.segments()))] == before


def test_the_metadata_is_always_read_only(metadata: ivshmem.Metadata) -> None:
    backends = [option for name, option in options(metadata.qemu_args()) if name == "-object"]
    assert [backend.get("readonly") for backend in backends] == [None, None, "on", "on"]
    assert all(backend["share"] == "on" for backend in backends)


def test_ids_of_several_metadata_for_one_vm(primary: eal.Eal) -> None:
    """Their options may follow each other although they share segments."""
    zones = [eal.memzone_reserve(f"zone{n}", 64, group=f"group{n % 3}") for n in range(9)]
    made = [ivshmem.metadata_create(name) for name in ("vm0", "0,=", " ", "ü", "..")]
    for metadata in made:
        for zone in zones:
            metadata.add_memzone(zone)
    args = [word for metadata in made for word in metadata.qemu_args()]
    ids = ids_of(args)
    assert len(ids) == 5 * (1 + 2 * (3 + 1))
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not ID.fullmatch(name)] == []
    for _, option in options(args):
        assert option.get("memdev", option["id"]) in ids
        assert option.get("bus", option["id"]) in ids
    assert_bridges_apart(args)


def assert_bridges_apart(args: list[str]) -> None:
    """No two of them have an address or a chassis number in common, nor one that a user's own are likely to have."""
    bridges = [option for _, option in options(args) if option[""] == "pci-bridge"]
    addresses = [(option.get("bus"), int(option["addr"], 16)) for option in bridges]
    assert len(set(addresses)) == len(bridges)
    assert len({option["chassis_nr"] for option in bridges}) == len(bridges)
    assert all(0 < int(option["chassis_nr"]) < 256 for option in bridges)
    # the upper half of the root bus, short of 0x1d to 0x1f: q35's own devices, and the VM harness's
    assert all(0x10 <= slot <= 0x1C for bus, slot in addresses if bus is None)


def test_each_metadata_has_a_place_of_its_own(primary: eal.Eal, peer: Callable[..., Any]) -> None:
    """Twelve of them, of any prefix; and one that goes leaves its place to the next."""
    made = [ivshmem.metadata_create(f"vm{number}") for number in range(6)]
    other = peer("""
        import json, sys, eal, ivshmem
        eal.init(file_prefix=sys.argv[1] + "-other", no_huge=True)
        made = [ivshmem.metadata_create(f"other{n}") for n in range(6)]
        print(json.dumps([word for metadata in made for word in metadata.qemu_args()]))
        sys.stdin.read()
    """)
    others = json.loads(other.hear())
    for group in range(40):
        for metadata in made:
            metadata.add_memzone(eal.memzone_reserve(f"{metadata.name}-{group}", 64, group=f"group{group}"))
    args = [word for metadata in made for word in metadata.qemu_args()] + others
    assert_bridges_apart([*args, *ivshmem.qemu_args(plug="1G")])
    assert len([option for _, option in options(args) if option[""] == "pci-bridge"]) == 6 * 2 + 6

    place = qemu.place_of(made[2].uuid)
    made[2].close()
    assert qemu.place_of(ivshmem.metadata_create("next").uuid) == place
    thirteenth = ivshmem.metadata_create("thirteenth")
    assert thirteenth.qemu_args() == ivshmem.qemu_args(thirteenth)
    other.end()


@pytest.fixture(
    params=[
        "a,b",
        "a=b,share=off",
        "two  blanks",
        "it's",
        '"quoted"',
        "$(id)`id`",
        "back\\slash",
        "*?[",
        "-",
        "ü",
        "x;y|z&",
    ]
)
def odd(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[ivshmem.Metadata]:
    """A metadata whose files have a path that trips over options or shells."""
    with eal.init(file_prefix=request.param, no_huge=True):
        metadata = ivshmem.metadata_create(request.param)
        metadata.add_memzone(eal.memzone_reserve("zone", 64))
        yield metadata


def test_odd_paths_in_options(odd: ivshmem.Metadata) -> None:
    args = odd.qemu_args()
    paths = [option["mem-path"] for name, option in options(args) if name == "-object"]
    assert paths == [eal.segments()[0].path, odd.path]
    assert all(Path(path).exists() for path in paths)
    assert all(ID.fullmatch(name) for name in ids_of(args))


def test_odd_paths_in_a_shell(odd: ivshmem.Metadata) -> None:
    assert shlex.split(odd.cmdline()) == odd.qemu_args()
    shell = ["sh", "-c", f"printf '%s\\n' {odd.cmdline()}"]
    assert subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines() == odd.qemu_args()


# --- files that are gone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_a_file_that_is_gone(metadata: ivshmem.Metadata, which: int) -> None:
    """QEMU would make an empty one in its place."""
    gone = Path(metadata.devices()[which].path)
    gone.unlink()
    for ask in (metadata.qemu_args, metadata.cmdline, metadata.devices, lambda: ivshmem.qemu_args(metadata)):
        with pytest.raises(eal.NotFound, match=f"{re.escape(str(gone))}, which metadata 'vm0' needs, is gone"):
            ask()
    assert not gone.exists()


def test_a_metadata_whose_eal_is_closed(metadata: ivshmem.Metadata, primary: eal.Eal) -> None:
    primary.close()
    with pytest.raises(eal.Closed):
        metadata.qemu_args()


# --- a whole VM ---------------------------------------------------------------------------------------------


def test_a_segment_of_two_metadata_comes_once(primary: eal.Eal) -> None:
    zone, other = eal.memzone_reserve("zone", 64), eal.memzone_reserve("other", 64, group="other")
    first, second = ivshmem.metadata_create("vm0"), ivshmem.metadata_create("vm1")
    first.add_memzone(zone, readonly=True)
    first.add_memzone(other, readonly=True)
    second.add_memzone(zone)
    backends = [o for name, o in options(ivshmem.qemu_args(first, second)) if name == "-object"]
    assert [Path(backend["mem-path"]).name for backend in backends] == [
        Path(path).name for path in (zone.segment.path, other.segment.path, first.path, second.path)
    ]
    # writable, if any of the two has it so
    assert [backend.get("readonly") for backend in backends] == [None, "on", "on", "on"]


def test_the_same_metadata_twice_comes_once(metadata: ivshmem.Metadata) -> None:
    assert ivshmem.qemu_args(metadata, metadata) == ivshmem.qemu_args(metadata) == metadata.qemu_args()


def test_no_metadata_is_no_options() -> None:
    assert ivshmem.qemu_args() == []


@pytest.mark.parametrize(
    ("count", "bridges"), [(1, 1), (16, 1), (31, 1), (32, 2), (61, 2), (62, 3), (201, 7), (2000, 67), (7201, 240)]
)
@pytest.mark.parametrize("place", [0, 11])
def test_devices_are_placed_on_bridges(count: int, bridges: int, place: int) -> None:
    args = qemu.vm_args(devices(count), place=place)
    parsed = options(args)
    found = [option for name, option in parsed if option[""] == "pci-bridge"]
    placed = [(option["bus"], int(option["addr"], 16)) for _, option in parsed if option.get("bus")]
    assert len(found) == bridges
    assert_bridges_apart(args)
    assert [int(option["addr"], 16) for option in found if "bus" not in option] == [qemu.PLACES[place]]
    assert len(set(placed)) == len(placed) == count + bridges - 1
    assert {bus for bus, _ in placed} == {option["id"] for option in found}
    assert all(1 <= slot <= 31 for _, slot in placed)
    names = [name for name, _ in parsed]
    assert names.count("-object") == count
    assert len({option["id"] for _, option in parsed}) == len(parsed)
    # a bridge before what is on it, a backend before its device
    known: set[str] = set()
    for _, option in parsed:
        assert {option.get("bus"), option.get("memdev")} <= known | {None}
        known.add(option["id"])


def test_more_devices_than_pci_has_buses_for() -> None:
    error = "7202 devices for one VM: they need 241 bridges, and PCI's 256 bus numbers leave room for 240, so for 7201"
    with pytest.raises(eal.Invalid, match=error):
        qemu.vm_args(devices(7202))


def test_no_devices_need_no_bridge() -> None:
    assert qemu.vm_args([]) == []


@pytest.mark.parametrize("count", [0, 1, 100])
def test_room_for_plugging(count: int) -> None:
    args = options(qemu.vm_args(devices(count), "1G"))
    name, bridge = args[-1]
    assert name == "-device"
    assert (bridge["id"], bridge[""], int(bridge["addr"], 16)) == (qemu.PLUG_BRIDGE, "pci-bridge", 0x1A)
    assert (bridge["pref64-reserve"], bridge["mem-reserve"], bridge["shpc"]) == ("1G", "4M", "off")
    assert options(qemu.vm_args(devices(count))) == args[:-1]
    assert_bridges_apart(qemu.vm_args(devices(count), "1G"))
    assert len({option["id"] for _, option in args}) == len(args)


NO_SIZES = ["", "G", "0G", "-1G", "1024", "1K", "1.5G", "1 G", "1G,id=x", "1_0G", "\uff11G", "1G\n", 1 << 30, b"1G"]


@pytest.mark.parametrize("plug", NO_SIZES)
def test_room_that_is_no_size(plug: Any, primary: eal.Eal) -> None:
    with pytest.raises(eal.Invalid, match="a size such as '1G' or '256M'") as caught:
        qemu.vm_args(devices(1), plug)
    assert repr(plug) in str(caught.value)
    with pytest.raises(eal.Invalid):
        ivshmem.qemu_args(ivshmem.metadata_create(f"vm{uuid4().hex[:8]}"), plug=plug)


# --- NUMA ---------------------------------------------------------------------------------------------------


def test_a_bound_segment_says_where(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64, socket_id=0, group="bound"))
    metadata.add_memzone(eal.memzone_reserve("free", 64, group="free"))
    bound, free, own = (o for name, o in options(metadata.qemu_args()) if name == "-object")
    assert (bound["host-nodes"], bound["policy"]) == ("0", "bind")
    assert "host-nodes" not in free
    assert "host-nodes" not in own
