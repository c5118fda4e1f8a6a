# SPDX-License-Identifier: BSD-3-Clause
"""QEMU command lines as text: options, ids, quoting, bridges, and invalid arguments."""

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
ID = re.compile(r"[A-Za-z][A-Za-z0-9\-._]*")  # QEMU's syntax of an id


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
    """Return pairs of an option and its fields, parsed as by QEMU: split at commas, unless doubled."""
    assert len(args) % 2 == 0
    found = []
    for name, value in zip(args[::2], args[1::2], strict=True):
        first, *rest = (part.replace("\0", ",") for part in value.replace(",,", "\0").split(","))
        found.append((name, {"": first, **dict(part.split("=", 1) for part in rest)}))
    return found


def ids_of(args: list[str]) -> list[str]:
    return [option["id"] for _, option in options(args)]


# --- one device ---------------------------------------------------------------------------------------------


def test_device_has_backend_and_frontend() -> None:
    assert qemu.device_args(device(7), "bus=b") == [
        "-object",
        "memory-backend-file,id=dev7,size=2097152,mem-path=/dev/shm/file7,share=on",
        "-device",
        "ivshmem-plain,id=dev7-dev,memdev=dev7,bus=b",
    ]


def test_readonly_device_bound_to_numa_node() -> None:
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
def test_quote_doubles_commas(text: str, quoted: str) -> None:
    assert qemu.quote(text) == quoted


@given(path=st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1))
def test_path_survives_quoting(path: str) -> None:
    args = qemu.device_args(device(path=path), "bus=b")
    assert [option.get("mem-path") for _, option in options(args)] == [path, None]
    assert shlex.split(shlex.join(args)) == args


# --- one metadata file --------------------------------------------------------------------------------------


@pytest.fixture
def metadata(primary: eal.Eal) -> ivshmem.Metadata:
    """Return metadata with two writable segments and a read-only one."""
    made = ivshmem.metadata_create("vm0")
    made.add_memzone(eal.memzone_reserve("zone", 64))
    made.add_ring(eal.ring_create("ring", 8, group="rings"))
    made.add_memzone(eal.memzone_reserve("seen", 64, group="seen"), readonly=True)
    return made


def test_options_of_metadata_file_and_segments(metadata: ivshmem.Metadata) -> None:
    own = metadata.uuid.hex[:12]
    expected = ["-device", "pci-bridge,id=ivs-bus0,chassis_nr=100,shpc=off,addr=0x1c"]
    for slot, (segment, more) in enumerate(zip(eal.segments(), ("", "", ",readonly=on"), strict=True), start=1):
        name = f"ivs-{own}-{segment.uuid.hex[:12]}"
        expected += [
            "-object",
            f"memory-backend-file,id={name},size={segment.size},mem-path={segment.path},share=on{more}",
            "-device",
            f"ivshmem-plain,id={name}-dev,memdev={name},bus=ivs-bus0,addr={slot:#x}",
        ]
    assert metadata.qemu_args() == [
        *expected,
        "-object",
        f"memory-backend-file,id=ivs-{own},size=1048576,mem-path={metadata.path},share=on,readonly=on",
        "-device",
        f"ivshmem-plain,id=ivs-{own}-dev,memdev=ivs-{own},bus=ivs-bus0,addr=0x4",
    ]


def test_options_are_repeatable_and_change_no_file(metadata: ivshmem.Metadata) -> None:
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


def test_metadata_file_is_always_readonly(metadata: ivshmem.Metadata) -> None:
    backends = [option for name, option in options(metadata.qemu_args()) if name == "-object"]
    assert [backend.get("readonly") for backend in backends] == [None, None, "on", "on"]
    assert all(backend["share"] == "on" for backend in backends)


def test_concatenated_options_have_unique_ids(primary: eal.Eal) -> None:
    """The metadata files have segments in common."""
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
    """Check that addresses and chassis numbers are unique, and not those that users usually assign."""
    bridges = [option for _, option in options(args) if option[""] == "pci-bridge"]
    addresses = [(option.get("bus"), int(option["addr"], 16)) for option in bridges]
    assert len(set(addresses)) == len(bridges)
    assert len({option["chassis_nr"] for option in bridges}) == len(bridges)
    assert all(0 < int(option["chassis_nr"]) < 256 for option in bridges)
    # The upper half of the root bus, except 0x1d to 0x1f: devices of q35 and of the VM tests.
    assert all(0x10 <= slot <= 0x1C for bus, slot in addresses if bus is None)


def test_twelve_metadata_files_have_different_bridge_slots(primary: eal.Eal, peer: Callable[..., Any]) -> None:
    """They may belong to different prefixes. The slot of a closed one is used again."""
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
    """Return metadata whose files have a path with characters special to options or shells."""
    with eal.init(file_prefix=request.param, no_huge=True):
        metadata = ivshmem.metadata_create(request.param)
        metadata.add_memzone(eal.memzone_reserve("zone", 64))
        yield metadata


def test_special_characters_in_option_paths(odd: ivshmem.Metadata) -> None:
    args = odd.qemu_args()
    paths = [option["mem-path"] for name, option in options(args) if name == "-object"]
    assert paths == [eal.segments()[0].path, odd.path]
    assert all(Path(path).exists() for path in paths)
    assert all(ID.fullmatch(name) for name in ids_of(args))


def test_special_characters_in_shell_command(odd: ivshmem.Metadata) -> None:
    assert shlex.split(odd.cmdline()) == odd.qemu_args()
    shell = ["sh", "-c", f"printf '%s\\n' {odd.cmdline()}"]
    assert subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines() == odd.qemu_args()


# --- missing files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_missing_file_raises_not_found(metadata: ivshmem.Metadata, index: int) -> None:
    """QEMU would create an empty file in its place."""
    missing = Path(metadata.devices()[index].path)
    missing.unlink()
    for call in (metadata.qemu_args, metadata.cmdline, metadata.devices, lambda: ivshmem.qemu_args(metadata)):
        with pytest.raises(eal.NotFound, match=f"file {re.escape(str(missing))} of metadata 'vm0' does not exist"):
            call()
    assert not missing.exists()


def test_options_after_close_of_eal_raise_closed(metadata: ivshmem.Metadata, primary: eal.Eal) -> None:
    primary.close()
    with pytest.raises(eal.Closed):
        metadata.qemu_args()


# --- several metadata files ---------------------------------------------------------------------------------


def test_common_segment_is_listed_once(primary: eal.Eal) -> None:
    zone, other = eal.memzone_reserve("zone", 64), eal.memzone_reserve("other", 64, group="other")
    first, second = ivshmem.metadata_create("vm0"), ivshmem.metadata_create("vm1")
    first.add_memzone(zone, readonly=True)
    first.add_memzone(other, readonly=True)
    second.add_memzone(zone)
    backends = [o for name, o in options(ivshmem.qemu_args(first, second)) if name == "-object"]
    assert [Path(backend["mem-path"]).name for backend in backends] == [
        Path(path).name for path in (zone.segment.path, other.segment.path, first.path, second.path)
    ]
    # Writable if one of the two metadata files shares it writable.
    assert [backend.get("readonly") for backend in backends] == [None, "on", "on", "on"]


def test_same_metadata_twice_is_listed_once(metadata: ivshmem.Metadata) -> None:
    assert ivshmem.qemu_args(metadata, metadata) == ivshmem.qemu_args(metadata) == metadata.qemu_args()


def test_no_metadata_yields_no_options() -> None:
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
    # A bridge precedes its devices, a backend its device.

    defined: set[str] = set()
    for _, option in parsed:
        assert {option.get("bus"), option.get("memdev")} <= defined | {None}
        defined.add(option["id"])


def test_more_devices_than_bus_numbers_raises_invalid() -> None:
    error = "number of devices of a VM must be at most 7201 (PCI has bus numbers for 240 bridges), got 7202"
    with pytest.raises(eal.Invalid, match=re.escape(error)):
        qemu.vm_args(devices(7202))


def test_no_devices_yield_no_bridge() -> None:
    assert qemu.vm_args([]) == []


@pytest.mark.parametrize("count", [0, 1, 100])
def test_plug_adds_bridge_with_window(count: int) -> None:
    args = options(qemu.vm_args(devices(count), "1G"))
    name, bridge = args[-1]
    assert name == "-device"
    assert (bridge["id"], bridge[""], int(bridge["addr"], 16)) == (qemu.PLUG_BRIDGE, "pci-bridge", 0x1A)
    assert (bridge["pref64-reserve"], bridge["mem-reserve"], bridge["shpc"]) == ("1G", "4M", "off")
    assert options(qemu.vm_args(devices(count))) == args[:-1]
    assert_bridges_apart(qemu.vm_args(devices(count), "1G"))
    assert len({option["id"] for _, option in args}) == len(args)


INVALID_SIZES = [
    "",
    "G",
    "0G",
    "-1G",
    "1024",
    "1K",
    "1.5G",
    "1 G",
    "1G,id=x",
    "1_0G",
    "\uff11G",
    "1G\n",
    1 << 30,
    b"1G",
]


@pytest.mark.parametrize("plug", INVALID_SIZES)
def test_invalid_plug_size_raises_invalid(plug: Any, primary: eal.Eal) -> None:
    with pytest.raises(eal.Invalid, match="a size such as '1G' or '256M'") as caught:
        qemu.vm_args(devices(1), plug)
    assert repr(plug) in str(caught.value)
    with pytest.raises(eal.Invalid):
        ivshmem.qemu_args(ivshmem.metadata_create(f"vm{uuid4().hex[:8]}"), plug=plug)


# --- NUMA ---------------------------------------------------------------------------------------------------


def test_bound_segment_has_host_node(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64, socket_id=0, group="bound"))
    metadata.add_memzone(eal.memzone_reserve("free", 64, group="free"))
    bound, free, own = (o for name, o in options(metadata.qemu_args()) if name == "-object")
    assert (bound["host-nodes"], bound["policy"]) == ("0", "bind")
    assert "host-nodes" not in free
    assert "host-nodes" not in own
