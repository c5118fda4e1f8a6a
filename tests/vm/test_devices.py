# SPDX-License-Identifier: BSD-3-Clause
"""Foreign devices stay unchanged; one VM gets several metadata files, and several VMs get one object."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal import RingFlag

MIB = 1 << 20
COUNT = 20_000


def zone_with(text: str, **where: Any) -> eal.Memzone:
    zone = eal.memzone_reserve(text.replace(" ", "_"), 4096, **where)
    zone.buf[: len(text)] = text.encode()
    return zone


def metadata_with(name: str, *zones: eal.Memzone, readonly: bool = False) -> ivshmem.Metadata:
    made = ivshmem.metadata_create(name)
    for zone in zones:
        made.add_memzone(zone, readonly=readonly)
    return made


def test_foreign_devices_keep_their_state(primary: eal.Eal, guest: Callable[..., Any], tmp_path: Path) -> None:
    ours = zone_with("ours")
    # The size of a segment, the smallest size that QEMU accepts, and a device that another program uses.
    contents = {tmp_path / f"foreign{size}": random.randbytes(size) for size in (2 * MIB, 4096, 65536)}
    for file, content in contents.items():
        file.write_bytes(content)

    running = guest(
        "devices", metadata_with("vm0", ours), files=[*contents], others=["e1000,addr=0x18", "virtio-rng-pci,addr=0x19"]
    )
    found = running.hear()
    running.end()

    foreign = sorted(running.addresses.values())
    assert found["foreign"] == foreign
    assert found["rejections"] == []
    assert found["memzones"] == {"ours": "ours"}
    mine = {address for address in found["checksums"] if address not in foreign}
    assert len(mine) == 2
    assert {a: s for a, s in found["after"].items() if a not in mine} == {
        a: s for a, s in found["before"].items() if a not in mine
    }
    assert [found["after"][address]["enable"] for address in foreign] == ["0", "0", "1"]
    assert {found["after"][address]["enable"] for address in mine} == {"1"}
    if running.in_vm:
        assert found["after"]["0000:00:19.0"]["driver"] == "virtio-pci"
    for file, content in contents.items():
        assert file.read_bytes() == content
        assert found["checksums"][running.addresses[file]] == zlib.crc32(content)


@pytest.mark.parametrize("guest", ["emulated"], indirect=True)  # QEMU accepts no smaller BAR
def test_device_smaller_than_a_header_keeps_its_state(
    primary: eal.Eal, guest: Callable[..., Any], tmp_path: Path
) -> None:
    small, smaller = tmp_path / "small", tmp_path / "smaller"
    for file in (small, smaller):
        file.write_bytes(random.randbytes(256))
    found = (running := guest("devices", files=[small, smaller])).hear()
    running.end()
    assert found["foreign"] == sorted(running.addresses.values())
    assert found["after"] == found["before"]
    assert [found["after"][running.addresses[file]]["enable"] for file in (small, smaller)] == ["0", "1"]


@pytest.mark.parametrize("concatenated", [False, True], ids=["planned", "concatenated"])
def test_several_metadata_files_in_one_vm_share_all_objects(
    primary: eal.Eal, guest: Callable[..., Any], concatenated: bool
) -> None:
    """The first two share one segment and one zone; the third has a segment of its own."""
    both, first, second = zone_with("both"), zone_with("first"), zone_with("second")
    third = zone_with("third", group="elsewhere")
    assert first.segment.uuid == second.segment.uuid != third.segment.uuid
    every = [
        metadata_with("one", both, first),
        metadata_with("two", both, second),
        metadata_with("three", third),
    ]

    found = (running := guest("devices", *every, concatenated=concatenated)).hear()
    running.end()

    assert found["rejections"] == []
    assert sorted(found["shares"]) == ["one", "three", "two"]
    assert found["segments"] == 2
    assert found["memzones"] == {"both": "both", "first": "first", "second": "second", "third": "third"}
    assert len(found["checksums"]) == (6 if concatenated else 5)  # the common segment comes twice or once
    assert [bytes(zone.buf[-5:]) for zone in (both, first, second, third)] == [b"guest"] * 4


def test_segment_listed_readonly_and_writable_is_writable(primary: eal.Eal, guest: Callable[..., Any]) -> None:
    """Of two devices that carry the segment, the guest must use the writable one."""
    facts, work = zone_with("facts"), zone_with("work")
    reader, writer = metadata_with("reader", facts, readonly=True), metadata_with("writer", work)

    found = (running := guest("devices", reader, writer, concatenated=True)).hear()
    running.end()

    assert found["rejections"] == []
    assert found["memzones"] == {"facts": "facts", "work": "work"}
    assert bytes(work.buf[-5:]) == b"guest"


def test_two_guests_exchange_messages_without_the_host(primary: eal.Eal, guest: Callable[..., Any]) -> None:
    one_to_one = RingFlag.SP_ENQ | RingFlag.SC_DEQ
    board = eal.array_reserve("board", (), [("count", "<u8"), ("sender", "<u4"), ("receiver", "<u4")])
    board.array()["count"] = COUNT
    rings = [eal.ring_create(name, 256, flags=one_to_one) for name in ("wire", "back")]
    running = []
    for role in ("sender", "receiver"):
        metadata = metadata_with(f"for_{role}", board)
        for ring in rings:
            metadata.add_ring(ring)
        running.append(guest("relay", metadata, arguments=[role]))

    assert [one.hear() for one in running] == [
        {"in_order": True, "metadata": ["for_sender"]},
        {"in_order": True, "metadata": ["for_receiver"]},
    ]
    for one in running:
        one.end()
    assert board.array().tolist() == (COUNT, True, True)
    assert all(ring.empty for ring in rings)
