# SPDX-License-Identifier: BSD-3-Clause
"""Plug and unplug in a real VM while data flows, with guests that do not answer."""

from __future__ import annotations

import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import eal
import ivshmem
from ivshmem.hotplug.hotplug_vm import HotplugVm
from ivshmem.hotplug.qmp import Qmp

pytestmark = [pytest.mark.vm, pytest.mark.vm_alone]  # heartbeats and time limits of seconds

MIB = 1 << 20
ROUNDS = 50
PATIENCE = 30.0  # seconds for the guest of a busy machine


class Flow:
    """Send numbers to the guest and receive them back continuously; check their order and count."""

    def __init__(self) -> None:
        self.back = 0
        self.faults: list[str] = []
        self._sent = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        ping, pong = eal.ring_lookup("ping"), eal.ring_lookup("pong")
        while not self._ended.is_set() or (self.back < self._sent and not self.faults):
            if not self._ended.is_set() and ping.enqueue(self._sent):
                self._sent += 1
            if (number := pong.dequeue()) is None:
                time.sleep(0.001)
            else:
                if number != self.back:
                    self.faults.append(f"{number!r} received instead of {self.back}")
                self.back += 1

    def goes_on(self) -> None:
        """Wait until some more numbers have come back."""
        wanted, deadline = self.back + 10, time.monotonic() + 30
        while self.back < wanted:
            assert time.monotonic() < deadline, "nothing comes back any more"
            time.sleep(0.002)

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def check(self) -> None:
        """Check that all numbers came back in order."""
        assert self.faults == []
        assert self.back == self._sent > 0


class Hot:
    """A metadata file to plug, with a memzone, a ring and a mempool. The names are always the same; `number` selects
    the segment and the content.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._group = f"hot{number % 2}"
        if not any(segment.group == self._group for segment in eal.segments()):
            eal.segment_create((2 << number % 2) * MIB, group=self._group)
        self.zone = eal.memzone_reserve("zone", 4096, group=self._group)
        self.zone.buf[:] = os.urandom(4096)
        self.ring = eal.ring_create("ring", 64, group=self._group)
        self.ring.enqueue(number)
        self.pool = eal.mempool_create("pool", 32 + number, 64, group=self._group)
        self.metadata = ivshmem.metadata_create("hot")
        self.metadata.add(self.zone, self.ring, self.pool)
        self.more: list[eal.Memzone] = []

    def check(self, told: dict[str, Any]) -> None:
        """Compare the guest's report with the content."""
        assert told["metadata"] == "hot"
        assert told["content"] == {
            "zone": zlib.crc32(self.zone.buf),
            "ring": self.number,
            "pool": 32 + self.number,
        }
        assert self.ring.dequeue() == self.number + 1, "what the guest wrote reached the host"

    def free(self) -> None:
        self.metadata.close()
        for zone in (self.zone, *self.more):
            eal.memzone_free(zone)
        eal.ring_free(self.ring)
        eal.mempool_free(self.pool)


@pytest.fixture
def base(primary: eal.Eal) -> ivshmem.Metadata:
    """The share that the VM has from the start and keeps."""
    made = ivshmem.metadata_create("base")
    made.add(*(eal.ring_create(name, 256, group="base") for name in ("ping", "pong", "orders")))
    return made


@pytest.fixture
def vm(base: ivshmem.Metadata, plug_guest: Callable[..., Any]) -> Iterator[Any]:
    running = plug_guest("hotplug", base, plug="64M")
    assert running.hear()["kind"] == "ready"
    yield running
    eal.ring_lookup("orders").enqueue(0)
    running.end()


def given(vm: Any) -> list[Any]:
    """Return the VM's devices; QEMU lists them in no particular order."""
    with Qmp(vm.qmp) as qmp:
        return sorted(HotplugVm(qmp, 5).devices(), key=lambda one: one.id)


def hear(vm: Any, kind: str, who: str = "parent") -> dict[str, Any]:
    """Return the guest's next report, other than that some segments are still pending."""
    while (told := vm.hear())["kind"] == "pending":
        pass
    assert (told["kind"], told["who"]) == (kind, who), str(told)
    return dict(told)


def hear_both(vm: Any) -> dict[str, dict[str, Any]]:
    """Return the next reports of parent and child, in any order."""
    told: dict[str, dict[str, Any]] = {}
    while len(told) < 2:
        if (one := vm.hear())["kind"] != "pending":
            told[one["who"]] = one
    return told


def check_gone(told: dict[str, Any], reason: str) -> None:
    """Check that every use of an object raises Detached, and that raw views read zeros."""
    assert told["metadata"] == "hot"
    assert reason in told["reason"]
    assert (told["detached"], told["zeros"]) == (True, True), str(told)


# --- fifty times --------------------------------------------------------------------------------------------


def plug_and_unplug(vm: Any, number: int) -> str:
    """Plug and unplug once; return the address at which the guest found the metadata file."""
    hot = Hot(number)
    hot.metadata.plug(vm.qmp, PATIENCE)
    told = hear(vm, "plugged")
    hot.check(told)
    if number % 10 == 7:
        add_more(vm, hot)
    hot.metadata.unplug(vm.qmp, PATIENCE)
    check_gone(hear(vm, "unplugged"), "announced")
    hot.free()
    return str(told["address"])


def add_more(vm: Any, hot: Hot) -> None:
    """Add an object in a segment that the VM does not have."""
    before = len(given(vm))
    more = eal.memzone_reserve("more", 64, group="more")
    more.buf[:] = os.urandom(64)
    hot.more.append(more)
    hot.metadata.add_memzone(more)
    assert hear(vm, "added")["content"] == {"more": zlib.crc32(more.buf)}
    assert len(given(vm)) == before + 1


def check_too_small(vm: Any) -> None:
    """Plug a segment that does not fit: the error names the missing room, and the VM keeps its devices."""
    before = given(vm)
    big = ivshmem.metadata_create("big")
    eal.segment_create(128 * MIB, group="big")
    big.add_memzone(eal.memzone_reserve("big", 64, group="big"))
    with pytest.raises(eal.NoMemory, match=r"bridge 'ivs-plug' has a window of 64 MiB, largest free BAR"):
        big.plug(vm.qmp)
    assert given(vm) == before


def test_fifty_plugs_and_unplugs_keep_the_data_flowing(vm: Any) -> None:
    before = given(vm)
    with Flow() as flow:
        addresses = []
        for number in range(ROUNDS):
            addresses.append(plug_and_unplug(vm, number))
            flow.goes_on()
        check_too_small(vm)
        flow.goes_on()
    flow.check()
    assert len(set(addresses)) == 1, "the same slot each time"
    assert given(vm) == before


# --- guests that do not detach ------------------------------------------------------------------------------


def order(vm: Any, number: int) -> None:
    eal.ring_lookup("orders").enqueue(number)


def start_child(vm: Any) -> None:
    order(vm, 1)
    assert hear(vm, "ready", "child")


def signal_child(vm: Any, number: signal.Signals) -> None:
    order(vm, number)
    hear(vm, "signalled")


def plug_for_both(vm: Any, hot: Hot) -> None:
    hot.metadata.plug(vm.qmp, PATIENCE)
    assert {who: told["kind"] for who, told in hear_both(vm).items()} == {"parent": "plugged", "child": "plugged"}
    assert hot.ring.dequeue() == hot.number + 1


def unplug_though_one_was_killed(vm: Any) -> None:
    hot = Hot(0)
    start_child(vm)
    plug_for_both(vm, hot)
    signal_child(vm, signal.SIGKILL)
    hot.metadata.unplug(vm.qmp, PATIENCE)
    check_gone(hear(vm, "unplugged"), "announced")
    hot.free()


def unplug_though_one_is_stopped(vm: Any) -> None:
    """Without force the device stays under the stopped process; with force that process is not harmed."""
    hot, before = Hot(1), given(vm)
    start_child(vm)
    plug_for_both(vm, hot)
    signal_child(vm, signal.SIGSTOP)  # a monitor without a heartbeat for 2 s would count as dead
    with pytest.raises(
        eal.Stalled,
        match=r"'hot': unplug not acknowledged within 1\.8 s by machine [0-9a-f]{8} thread \d+ of process \d+",
    ):
        hot.metadata.unplug(vm.qmp, timeout=1.8)
    check_gone(hear(vm, "unplugged"), "announced")
    hot.ring.enqueue(1)
    hot.check(hear(vm, "added"))  # the share stays, so processes that detached adopt it again
    assert len(given(vm)) == len(before) + 2
    hot.metadata.unplug(vm.qmp, timeout=1.8, force=True)
    check_gone(hear(vm, "unplugged"), "announced")
    assert given(vm) == before
    order(vm, signal.SIGCONT)
    told = hear_both(vm)
    assert told["parent"]["kind"] == "signalled"
    assert told["child"]["kind"] == "unplugged"
    check_gone(told["child"], "")
    signal_child(vm, signal.SIGKILL)
    hot.free()


def remove_by_surprise(vm: Any) -> None:
    """Unplug without an announcement, as another program might; the segment goes before the metadata file."""
    hot, before = Hot(0), given(vm)
    hot.metadata.plug(vm.qmp, PATIENCE)
    hot.check(hear(vm, "plugged"))
    with Qmp(vm.qmp) as qmp:
        for device in hot.metadata.devices():
            qmp.execute("device_del", id=device.device_id)
    check_gone(hear(vm, "unplugged"), "gone")
    deadline = time.monotonic() + 10
    while given(vm) != before:
        assert time.monotonic() < deadline, "QEMU still has it"
        time.sleep(0.05)
    hot.ring.enqueue(0)
    hot.metadata.plug(vm.qmp, PATIENCE)  # although QEMU still has its memory
    hot.check(hear(vm, "plugged"))
    hot.metadata.unplug(vm.qmp, PATIENCE)
    check_gone(hear(vm, "unplugged"), "announced")
    hot.free()


def test_process_that_does_not_detach_harms_no_other(vm: Any) -> None:
    with Flow() as flow:
        for step in (unplug_though_one_was_killed, unplug_though_one_is_stopped, remove_by_surprise):
            step(vm)
            flow.goes_on()
    flow.check()
