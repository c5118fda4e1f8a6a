# SPDX-License-Identifier: BSD-3-Clause
"""Restarts: the host application is killed repeatedly while one VM, which is never touched, exchanges data with it."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivshmem.hotplug.hotplug_vm import HotplugVm
from ivshmem.hotplug.qmp import Qmp
from ivshmem.metadata.lookup import find_metadata

pytestmark = pytest.mark.vm_alone  # counts how much data flows between two kills

RESTARTS = {True: 20, False: 5}  # in a VM, and on the emulated bus

# One run of the host application. Its start-up code is the same each time and finds the existing objects.
#
# Message k is element k of the ring `down`, returns as element k of `up`, and is then counted in `book`, which no
# metadata file lists. Committed elements stay in the rings, so the indices of the rings tell a new run where the last
# one stopped; it only has to search for elements that the last run had dequeued.
HOST = """
import json, sys, time
import numpy as np
import eal, ivshmem

prefix, last = sys.argv[1], sys.argv[2] == "last"
MESSAGE = np.dtype([("number", "<u8"), ("answer", "<u8"), ("filler", "u1", 48)])
ST = eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ

app = eal.init(["--no-pci"], file_prefix=prefix, no_huge=True, recover=True)
pool = eal.mempool_create("pool", 120, 64, cache_size=16, exist_ok=True)
down = eal.ring_create("down", 128, elem_size=4, flags=ST, exist_ok=True)
up = eal.ring_create("up", 128, elem_size=4, flags=ST, exist_ok=True)
control = eal.array_reserve("control", (), [("stop", "<u4")], exist_ok=True).array()
book = eal.array_reserve("book", 1 << 22, "u1", group="host", exist_ok=True).array()
try:
    metadata = ivshmem.metadata_lookup("vm0")
except eal.NotFound:
    metadata = ivshmem.metadata_create("vm0")
    for add, thing in (
        (metadata.add_ring, down), (metadata.add_ring, up), (metadata.add_mempool, pool),
        (metadata.add_memzone, eal.memzone_lookup("control")),
    ):
        add(thing)
messages = pool.view(MESSAGE)
faults = []

def enter(index, number):
    message = messages[index]
    if (message["number"], message["answer"], message["filler"].tolist()) != (
        number, ~np.uint64(number), [number & 255] * 48
    ):
        faults.append(f"message {number} arrived as {message}")
    book[number] += 1

def take(limit):
    batch = np.zeros(limit, np.uint32)
    number = up.end("consumer").tail
    got = up.dequeue_burst(batch)
    for offset, index in enumerate(batch[:got].tolist()):
        enter(index, number + offset)
        pool.put(index)
    return got

def settle():
    "Free the objects that the last run had dequeued: the guest has returned all, so they are in no ring and no cache."
    deadline = time.monotonic() + 60
    while up.end("producer").tail != down.end("producer").tail:
        assert time.monotonic() < deadline, "the guest does not go on"
        time.sleep(0.001)
    audit = pool.audit(rings=[down, up])
    found = {
        "free": len(audit.free), "cached": sum(map(len, audit.cached.values())), "in_hand": len(audit.in_hand),
        "in_rings": sum(map(len, audit.in_rings.values())), "twice": len(audit.twice), "foreign": audit.foreign,
        "lost": audit.lost, "dead": sum(p.dead for p in audit.participants), "text": str(audit),
        "unentered": 0, "beyond": 0,
    }
    for index in audit.in_hand:
        number = int(messages["number"][index])
        if number < up.end("consumer").tail and not book[number]:
            enter(index, number)
            found["unentered"] += 1
        try:
            pool.put(index)
        except eal.Invalid:  # counted as put back by the one that died before it was
            found["beyond"] += 1
    return found

found = settle()
print(json.dumps({"epoch": app.epoch, "sent": down.end("producer").tail, "faults": faults, **found}), flush=True)
batch = np.zeros(8, np.uint32)
while not last:
    number = down.end("producer").tail
    if number + 8 <= len(book) and pool.get_bulk(batch):
        for offset, index in enumerate(batch.tolist()):
            messages[index] = (number + offset, 0, 0)
        assert down.enqueue_bulk(batch) == 8
    take(16)
    assert not faults, faults
while take(16):
    pass
control["stop"] = 1
sent = down.end("producer").tail
end = {"sent": sent, "faults": faults, "in_use": pool.in_use, "lost": pool.audit().lost}
entered = np.asarray(book)
end["missing"] = int((entered[:sent] == 0).sum())
end["doubled"] = int((entered > 1).sum())
end["invented"] = int((entered[sent:] != 0).sum())
print(json.dumps(end), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def seed() -> int:
    """Return RESTART_SEED or a new seed; it is printed, so that a failure can be repeated."""
    number = int(os.environ.get("RESTART_SEED", "0")) or random.randrange(1, 1 << 32)
    print(f"RESTART_SEED={number}")
    return number


def test_recover_continues_the_exchange_with_a_guest(
    runtime_dir: Path, prefix: str, peer: Callable[..., Any], guest: Callable[..., Any], seed: int
) -> None:
    when = random.Random(seed)
    host = peer(HOST, "on")
    lives = [json.loads(host.hear())]
    running = guest("restart", find_metadata(runtime_dir, "vm0", prefix))
    assert running.hear() == {"ready": True}
    restarts = RESTARTS[running.in_vm]
    for number in range(restarts):
        time.sleep(when.uniform(0.02, 0.2))
        host.crash()
        host = peer(HOST, "last" if number == restarts - 1 else "on")
        lives.append(json.loads(host.hear(90)))
    end, told = json.loads(host.hear(90)), running.hear()
    running.end()
    host.end()

    for life in lives:
        assert life["faults"] == []
        assert (life["twice"], life["foreign"]) == (0, 0)
        places = ("free", "cached", "in_hand", "in_rings")
        assert sum(life[place] for place in places) == 120, "each object of the pool is accounted for"
        assert life["beyond"] <= life["lost"]
    assert all("(dead)" in life["text"] for life in lives[1:] if life["dead"]), "audit names the dead"
    assert sum(life["dead"] for life in lives[1:]) >= restarts / 2
    assert [life["sent"] for life in lives] == sorted(life["sent"] for life in lives)
    assert end["sent"] > 50 * restarts, "data was flowing"
    assert (end["missing"], end["doubled"], end["invented"], end["faults"]) == (0, 0, 0, [])
    assert end["in_use"] <= sum(life["beyond"] for life in lives)
    epochs = [life["epoch"] for life in lives]
    assert epochs == sorted(set(epochs))
    assert (told["received"], told["faults"], told["retired"]) == (end["sent"], 0, False)
    assert set(told["epochs"]) <= set(epochs)
    assert len(told["epochs"]) > restarts / 2, "the guest can tell that its host started again"


# --- fresh start --------------------------------------------------------------------------------------------

AFRESH = 20  # restarts

# One run of the host application, which knows nothing of its predecessor. It sends numbers and counts the echoes.
FRESH_HOST = """
import json, sys, time
import eal, ivshmem

prefix, life, qmp = sys.argv[1], int(sys.argv[2]), sys.argv[3]
app = eal.init(["--no-pci"], file_prefix=prefix, no_huge=True)
down, up = (eal.ring_create(name, 128) for name in ("down", "up"))
metadata = ivshmem.metadata_create("vm0")
metadata.add(down, up)
print(json.dumps([device.path for device in metadata.devices()]), flush=True)
sys.stdin.readline()
if life > 1:
    metadata.plug(qmp, 30)
print("plugged", flush=True)
first = sent = back = life << 32
while True:
    sent += down.enqueue(sent)
    if (number := up.dequeue()) is None:
        time.sleep(0.001)
    else:
        assert number == back, (number, back)
        back += 1
        if back - first == 20:
            print("flows", flush=True)
            if life > int(sys.argv[4]):
                break
while up.dequeue() is not None or not down.empty:
    time.sleep(0.001)
down.enqueue(0)
sys.stdin.readline()
"""


@pytest.mark.vm
def test_fresh_starts_of_the_host_reach_the_guest(
    runtime_dir: Path, prefix: str, peer: Callable[..., Any], plug_guest: Callable[..., Any], tmp_path: Path
) -> None:
    """The VM is not touched: it gets the event stale, then the new share, and loses its predecessor's devices."""
    host = peer(FRESH_HOST, 1, tmp_path / "qmp", AFRESH)
    files = json.loads(host.hear())
    vm = plug_guest("afresh", find_metadata(runtime_dir, "vm0", prefix), plug="64M")
    assert vm.hear()["kind"] == "ready"
    host.say("go on")
    assert [host.hear(), host.hear()] == ["plugged", "flows"]
    for life in range(2, AFRESH + 2):
        host.crash()
        host = peer(FRESH_HOST, life, vm.qmp, AFRESH)
        before, files = files, json.loads(host.hear())
        assert not set(before) & set(files)
        stale = vm.hear(timeout=1)  # the old segments were retired before this host printed anything
        assert (stale["kind"], stale["refused"]) == ("stale", True)
        host.say("go on")
        told: dict[str, Any] = {}
        # The kernel reports the new devices in any order.
        while not {"plugged", "unplugged"} <= set(told):
            told |= {(one := vm.hear())["kind"]: one}
        assert set(told) <= {"pending", "plugged", "unplugged"}, told
        unplugged = told["unplugged"]
        assert (unplugged["reason"], unplugged["refused"]) == ("announced", True)
        assert unplugged["address"] == stale["address"]
        assert [host.hear(), host.hear()] == ["plugged", "flows"]
        with Qmp(vm.qmp) as qmp:
            assert sorted(one.path for one in HotplugVm(qmp, 5).devices()) == sorted(files)
    vm.end()
    host.end()
