# SPDX-License-Identifier: BSD-3-Clause
"""Hotplug with several processes in one guest: each attaches the share, detaches it and acknowledges the unplug."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hotplug import Lab, until

SCRIPT = """
    import sys, eal
    made = eal.init(file_prefix=sys.argv[1], no_huge=True, sysfs_root=sys.argv[2])
    watch = made.watch(lambda event: print(event.kind, event.metadata, flush=True))
    print(made.proc_type, *[share.name for share in made.shares], flush=True)
    for line in sys.stdin:
        try:
            print(made.ring_lookup(line.strip()).enqueue(1), flush=True)
        except eal.NotFound:
            print("none", flush=True)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Any:
    return Lab(tmp_path)


def test_each_process_finds_uses_and_detaches_share(lab: Any, peer: Callable[..., Any]) -> None:
    first = peer(SCRIPT, lab.root)
    assert first.hear() == "primary"
    second = peer(SCRIPT, lab.root)
    assert second.hear() == "secondary"
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    assert [p.hear() for p in (first, second)] == ["plugged vm0"] * 2
    third = peer(SCRIPT, lab.root)  # started after the plug
    assert third.hear() == "secondary vm0"
    processes = (first, second, third)
    for process in processes:
        process.say("vm0 ring")
    assert [p.hear() for p in processes] == ["True"] * 3
    assert metadata.ring("vm0 ring").count == 3
    assert len(metadata.monitor_slots()) == 3
    metadata.announce(4)
    assert [p.hear() for p in processes] == ["unplugged vm0"] * 3
    until(lambda: not metadata.monitor_slots())
    lab.pull(*metadata.addresses)
    for process in processes:
        process.say("vm0 ring")
    assert [p.hear() for p in processes] == ["none"] * 3
    for process in processes:
        process.end()


def test_monitor_slot_of_killed_process_is_dead_without_heartbeat(lab: Any, peer: Callable[..., Any]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    first, second = peer(SCRIPT, lab.root), peer(SCRIPT, lab.root)
    assert {p.hear().split()[-1] for p in (first, second)} == {"vm0"}
    until(lambda: len(metadata.monitor_slots()) == 2)
    first.crash()
    until(lambda: sorted(slot.dead for slot in metadata.monitor_slots()) == [False, True])
    before = {slot.slot: slot.heartbeat for slot in metadata.monitor_slots()}
    time.sleep(0.3)
    for slot in metadata.monitor_slots():
        assert (slot.heartbeat == before[slot.slot]) == slot.dead
        assert slot.dead or slot.heartbeat >= before[slot.slot] + 3  # one heartbeat per 100 ms
    metadata.announce(1)
    assert second.hear() == "unplugged vm0"
    until(lambda: [slot.dead for slot in metadata.monitor_slots()] == [True])
    second.end()
