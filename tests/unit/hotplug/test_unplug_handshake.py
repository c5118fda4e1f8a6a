# SPDX-License-Identifier: BSD-3-Clause
"""Unplug handshake: wait for the acknowledgements of live hotplug monitors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import eal
import ivshmem
from eal._native import lib
from eal.linux import process
from eal.memory.participant import share_word
from eal.memory.segment import Segment
from ivshmem.hotplug.unplug_handshake import set_announcement
from tests.unit.hotplug.metadata import MIB, file_of, ids, metadata_of


class Monitor:
    """The hotplug monitor of a guest process on another machine; with `acknowledges` it acknowledges an unplug."""

    def __init__(self, metadata: ivshmem.Metadata, segment: Segment, *, acknowledges: bool, owner: int = 0) -> None:
        self._base = segment.mapping.pointer()
        self._owner = owner or (0x1234_5678 << 32 | threading.get_native_id())
        self.slot = lib.ivs_participant_claim(self._base, self._owner, 77 << 40 | 1)
        lib.ivs_participant_guard(self._base, self.slot, self._owner, share_word(metadata.uuid))
        self._file, self.acknowledges, self.alive, self.announced = file_of(metadata), acknowledges, True, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            if self.alive:
                lib.ivs_participant_beat(self._base, self.slot, self._owner)
            if number := lib.ivs_table_leaving(self._file.mapping.pointer()):
                self.announced = number
                if self.acknowledges:
                    lib.ivs_participant_acknowledge(self._base, self.slot, self._owner, number)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        lib.ivs_participant_release(self._base, self.slot, self._owner)


@pytest.fixture
def monitor(hot: ivshmem.Metadata) -> Iterator[Callable[..., Monitor]]:
    started = []

    def start(**how: Any) -> Monitor:
        segment = next(one for one in eal.segments() if one.uuid == hot.devices()[0].uuid)
        started.append(Monitor(hot, segment, **how))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_unplug_waits_for_every_monitor(vm: Any, hot: ivshmem.Metadata, monitor: Callable[..., Monitor]) -> None:
    hot.plug(vm.path)
    monitors = [monitor(acknowledges=True), monitor(acknowledges=True, owner=0x9876 << 32 | 5)]
    hot.unplug(vm.path)
    first = {one.announced for one in monitors}
    assert len(first) == 1
    assert vm.backends() == []
    hot.plug(vm.path)
    hot.unplug(vm.path)
    assert {one.announced for one in monitors} == {first.pop() + 1}


def test_missing_acknowledgement_raises_stalled_unless_forced(
    vm: Any, hot: ivshmem.Metadata, monitor: Callable[..., Monitor]
) -> None:
    hot.plug(vm.path)
    monitor(acknowledges=True)
    attached = monitor(acknowledges=False, owner=0x9876_5432 << 32 | 5)
    with pytest.raises(eal.Stalled) as caught:
        hot.unplug(vm.path, timeout=0.3)
    guest = f"machine 98765432 thread 5 of process 77 (slot {attached.slot})"
    assert f"metadata 'hot': unplug not acknowledged within 0.3 s by {guest}" in str(caught.value)
    assert sorted(vm.backends()) == ids(hot)
    assert not file_of(hot).leaving
    hot.unplug(vm.path, timeout=0.3, force=True)
    assert vm.backends() == []


def test_dead_or_silent_monitor_is_ignored(vm: Any, hot: ivshmem.Metadata, monitor: Callable[..., Monitor]) -> None:
    hot.plug(vm.path)
    monitor(acknowledges=False, owner=process.machine_id() << 32 | 0x3F_FFFF)
    start = time.monotonic()
    hot.unplug(vm.path)
    assert time.monotonic() - start < 1
    hot.plug(vm.path)
    monitor(acknowledges=False).alive = False
    start = time.monotonic()
    hot.unplug(vm.path)
    assert 1.9 < time.monotonic() - start < 4
    assert vm.backends() == []


def test_monitors_of_other_shares_are_ignored(vm: Any, primary: eal.Eal, hot: ivshmem.Metadata) -> None:
    other = metadata_of("other")
    other.add_memzone(eal.memzone_lookup("zone hot-0"))
    segment = next(one for one in eal.segments() if one.uuid == hot.devices()[0].uuid)
    one = Monitor(other, segment, acknowledges=False)
    try:
        hot.plug(vm.path)
        hot.unplug(vm.path, timeout=0.2)
    finally:
        one.end()


def test_unplug_of_readonly_share_waits_fixed_time(vm: Any, primary: eal.Eal) -> None:
    metadata = metadata_of("seen", 2 * MIB, readonly=True)
    metadata.plug(vm.path)
    start = time.monotonic()
    metadata.unplug(vm.path)
    assert 1 <= time.monotonic() - start < 2


def test_plug_withdraws_announcement_of_killed_process(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    set_announcement(file_of(hot), 5)
    hot.plug(vm.path)
    assert not file_of(hot).leaving
