"""Watching: metadata that come, grow and go while a guest runs."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eal

HOTPLUG = runpy.run_path(str(Path(__file__).parents[1] / "hotplug.py"))
Heard, until = HOTPLUG["Heard"], HOTPLUG["until"]

OBJECTS = {("memzone", "vm0 zone"), ("ring", "vm0 ring"), ("mempool", "vm0 pool")}


@pytest.fixture
def lab(tmp_path: Path) -> Any:
    return HOTPLUG["Lab"](tmp_path)


@pytest.fixture
def guest(lab: Any, runtime_dir: Path, prefix: str) -> Callable[..., eal.Eal]:
    return lambda: eal.init(file_prefix=prefix, no_huge=True, sysfs_root=lab.root, stall_timeout=0.2)


# --- coming -------------------------------------------------------------------------------------------------


def test_a_plugged_metadata_can_be_looked_up(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    with guest() as made, made.watch(heard := Heard()):
        metadata = lab.metadata("vm0")
        address = lab.plug_all(metadata)
        event = heard.next("plugged")
        assert (event.metadata, event.address, set(event.objects)) == ("vm0", address, OBJECTS)
        assert made.ring_lookup("vm0 ring").enqueue(7)
        assert metadata.ring("vm0 ring").dequeue() == 7
        assert [share.name for share in made.shares] == ["vm0"]
        assert made.rejections == []


def test_an_unplugged_metadata_is_gone_and_acknowledged(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(heard := Heard()):
        ring = made.ring_lookup("vm0 ring")
        zone = made.memzone_lookup("vm0 zone")
        view = zone.buf
        view[:4] = b"data"
        (guard,) = metadata.guards()
        metadata.announce(3)
        until(lambda: not metadata.guards())
        event = heard.next("unplugged")
        assert (event.metadata, event.reason, set(event.objects)) == ("vm0", "announced", OBJECTS)
        assert bytes(view[:8]) == bytes(8)
        view[:4] = b"lost"
        assert bytes(metadata.zone("vm0 zone").buf[:4]) == b"data"
        with pytest.raises(eal.Detached):
            ring.enqueue(1)
        with pytest.raises(eal.Detached):
            _ = zone.buf
        with pytest.raises(eal.NotFound):
            made.ring_lookup("vm0 ring")
        assert guard.ack == 0
        assert np.array(view)[0] == ord("l")
