# SPDX-License-Identifier: BSD-3-Clause
"""A primary ends by close, detach, SIGKILL or exit; the next primary finds its files, or none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import eal
from eal.lifecycle import cleanup
from eal.runtime.prefix_dir import PrefixDir

Peers = Callable[..., Any]

PRIMARY = """
import os, signal, sys
import eal
made = eal.init(file_prefix=sys.argv[1], proc_type="primary", no_huge=True)
ring = eal.ring_create("ring", 8)
ring.enqueue(42)
pool = eal.mempool_create("pool", 64, 32, cache_size=8)
taken = pool.get()
pool.array[taken] = 3
eal.array_reserve("zone", 100, "<u2", group="other").array()[:] = 9
"""


def files(prefix: str) -> list[str]:
    """Return the names of the files of a prefix in /dev/shm."""
    return sorted(name for name in os.listdir("/dev/shm") if name.startswith("ivshmem.") and f".{prefix}." in name)


def state(runtime_dir: Path, prefix: str) -> tuple[int, list[str]]:
    """Return the number of data files of a prefix and all paths below the runtime directory."""
    return len(files(prefix)), sorted(str(path.relative_to(runtime_dir)) for path in runtime_dir.rglob("*"))


def init(prefix: str, **keywords: Any) -> eal.Eal:
    return eal.init(file_prefix=prefix, no_huge=True, **keywords)


def check_contents() -> None:
    """Check that every object of PRIMARY exists with its content."""
    assert eal.ring_lookup("ring").dequeue() == 42
    pool = eal.mempool_lookup("pool")
    assert pool.in_use == 1
    (lost,) = pool.audit().in_hand
    assert pool.array[lost].tolist() == [3] * 32
    pool.put(lost)
    assert pool.available == 64
    assert eal.memzone_lookup("zone").array().tolist() == [9] * 100
    assert eal.memzone_lookup("zone").segment.group == "other"


# --- close --------------------------------------------------------------------------------------------------


def test_close_of_primary_removes_all_files(runtime_dir: Path, prefix: str) -> None:
    with init(prefix) as made:
        made.memzone_reserve("z", 64)
        made.ring_create("r", 8, group="g")
        assert len(files(prefix)) == 2
    assert state(runtime_dir, prefix) == (0, [])
    assert made.closed
    made.close()
    made.detach()
    assert repr(made) == f"<Eal {prefix!r} closed>"


def test_every_call_after_close_raises_closed(primary: eal.Eal) -> None:
    zone, ring, pool = (
        primary.memzone_reserve("z", 64),
        primary.ring_create("r", 8),
        primary.mempool_create("p", 8, 8),
    )
    segment = zone.segment
    primary.close()
    for call in (
        *(lambda: primary.memzone_reserve("y", 64), lambda: primary.memzone_lookup("z"), primary.memzones),
        *(lambda: primary.ring_create("s", 8), lambda: primary.ring_lookup("r"), primary.rings),
        *(lambda: primary.mempool_create("q", 8, 8), lambda: primary.mempool_lookup("p"), primary.mempools),
        *(lambda: primary.memzone_free(zone), lambda: primary.ring_free(ring), lambda: primary.mempool_free(pool)),
        *(primary.segments, lambda: primary.segment_create(1 << 21), lambda: primary.epoch, primary.lock().__enter__),
        *(lambda: zone.buf, lambda: zone.array("u1"), lambda: pool.array, lambda: pool.object(0), segment.participants),
        *(lambda: segment.retired, ring.dequeue, pool.get, eal.current, eal.memzones),
    ):
        with pytest.raises(eal.Closed):
            call()


def test_exception_in_with_block_closes_eal(runtime_dir: Path, prefix: str) -> None:
    def fail() -> None:
        with init(prefix) as made:
            made.memzone_reserve("z", 64)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert state(runtime_dir, prefix) == (0, [])


def test_close_of_primary_sets_retired_flag_of_segments(primary: eal.Eal) -> None:
    segment = primary.memzone_reserve("z", 64).segment
    header = segment.mapping.view(0, 4096)
    assert header[128] == 0
    primary.close()
    assert header[128] == 1


def test_close_of_secondary_removes_nothing(primary: eal.Eal, peer: Peers) -> None:
    primary.ring_create("ring", 8).enqueue(1)
    before = state(primary.directory.root, primary.file_prefix)
    for how in ("close", "detach"):
        peer(f"import sys, eal; eal.init(file_prefix=sys.argv[1], proc_type='secondary', no_huge=True).{how}()").end()
        assert state(primary.directory.root, primary.file_prefix) == before
    assert primary.ring_lookup("ring").dequeue() == 1
    assert not primary.segments()[0].retired


def test_secondary_keeps_objects_after_primary_closes(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    first = init(prefix)
    ring = first.ring_create("ring", 8)
    ring.enqueue(5)
    other = peer(
        """
        import sys, eal
        made = eal.init(file_prefix=sys.argv[1], proc_type="secondary", no_huge=True)
        ring = eal.ring_lookup("ring")
        print("ready")
        sys.stdin.readline()
        print(ring.dequeue(), ring.memzone.segment.retired)
        """
    )
    assert other.hear() == "ready"
    first.close()
    with init(prefix) as second:  # the secondary still maps the old segments
        assert second.proc_type == "primary"
        assert second.rings() == []
        other.say()
        assert other.hear() == "5 True"
        other.end()
        second.ring_create("ring", 8)


def test_view_keeps_its_pages_mapped_after_close(primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("z", 4096)
    zone.buf[:] = b"\x77" * 4096
    view, address = zone.buf[10:20], zone.segment.address
    primary.close()
    assert mapped(address)
    assert bytes(view) == b"\x77" * 10
    view[0] = 1
    del view
    assert not mapped(address)


def test_pages_are_unmapped_with_the_last_view(primary: eal.Eal) -> None:
    zone = primary.array_reserve("z", (10, 10), "u1")
    array, pool = zone.array(), primary.mempool_create("p", 4, 4).array
    address = zone.segment.address
    row = array[3]
    primary.close()
    del array, zone
    assert mapped(address)
    del pool
    assert mapped(address)
    row[:] = 1
    del row
    assert not mapped(address)


def mapped(address: int) -> bool:
    with open("/proc/self/maps") as maps:
        return any(line.startswith(f"{address:x}-") for line in maps)


def test_hundred_init_and_close_leak_no_mapping_or_descriptor(runtime_dir: Path, prefix: str) -> None:
    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("ivshmem.")

    def use() -> None:
        with init(prefix) as made:
            ring = made.ring_create("r", 8)
            ring.enqueue(1)
            made.mempool_create("p", 64, 8, cache_size=8).get()
            made.memzone_reserve("z", 64).buf[0] = 1

    use()
    before = count()
    for _ in range(100):
        use()
    assert count() == before
    assert before[1] == 0


# --- detach -------------------------------------------------------------------------------------------------


def test_auto_attaches_to_files_kept_by_detach(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    peer(PRIMARY + "made.detach(); made.close()").end()
    assert len(files(prefix)) == 2
    with init(prefix) as second:
        assert second.proc_type == "primary"
        check_contents()
        second.detach()
    assert len(files(prefix)) == 2
    with init(prefix) as third:
        assert [ring.name for ring in third.rings()] == ["ring"]
    assert len(files(prefix)) == 2  # close does not remove files that an earlier detach kept
    init(prefix, proc_type="primary").close()
    assert state(runtime_dir, prefix) == (0, [])


def test_secondary_attaches_to_kept_files(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    peer(PRIMARY + "made.detach()").end()
    with init(prefix, proc_type="secondary") as second:
        assert second.proc_type == "secondary"
        check_contents()
    assert len(files(prefix)) == 2
    init(prefix, proc_type="primary").close()


def test_explicit_primary_discards_kept_files(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    peer(PRIMARY + "made.detach()").end()
    old = files(prefix)
    with init(prefix, proc_type="primary") as made:
        assert made.memzones() == []
        made.memzone_reserve("z", 64)
        assert not set(files(prefix)) & set(old)
    assert state(runtime_dir, prefix) == (0, [])


def test_each_primary_raises_the_epoch(runtime_dir: Path, prefix: str) -> None:
    epochs = []
    for how in ("close", "detach", "detach", "close", "close"):
        made = init(prefix, proc_type="primary" if how == "close" else "auto")
        epochs.append(made.epoch)
        assert made.memzone_reserve(f"z{len(epochs)}", 64, group=f"g{len(epochs)}").segment.epoch == made.epoch
        getattr(made, how)()
    init(prefix, proc_type="primary").close()
    assert epochs[1] < epochs[2] < epochs[3]
    assert epochs == sorted(epochs)


# --- SIGKILL ------------------------------------------------------------------------------------------------


def test_primary_after_killed_primary_removes_stale_files(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    """After each kill, the next primary removes the stale files and raises the epoch; files do not accumulate."""
    states, epochs = [], []
    for _ in range(20):
        victim = peer(PRIMARY + "print(made.epoch); sys.stdin.readline()")
        epochs.append(int(victim.hear()))
        victim.crash()
        states.append(state(runtime_dir, prefix))
    assert states[0][0] == 2
    assert len({repr(found) for found in states}) == 1
    assert all(earlier < later for earlier, later in pairwise(epochs))
    with init(prefix) as made:
        assert made.proc_type == "primary"
        assert made.memzones() == []
        assert made.epoch > epochs[-1]
    assert state(runtime_dir, prefix) == (0, [])


def test_kills_during_reservations_accumulate_no_files(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    busy = """
    import sys, eal
    made = eal.init(file_prefix=sys.argv[1], no_huge=True)
    print("ready")
    while True:
        for i in range(5):
            eal.memzone_reserve(f"z{i}", 100, group=f"g{i % 2}")
        for i in range(5):
            eal.memzone_free(eal.memzone_lookup(f"z{i}"))
    """
    for number in range(8):
        victim = peer(busy)
        assert victim.hear() == "ready"
        time.sleep(0.01 * number)
        victim.crash()
        assert len(files(prefix)) <= 2
    init(prefix).close()
    assert state(runtime_dir, prefix) == (0, [])


@pytest.mark.parametrize("how", ["fork", "subprocess"])
def test_live_child_of_killed_primary_does_not_block_next_primary(
    runtime_dir: Path, prefix: str, peer: Peers, how: str
) -> None:
    spawn = {
        "fork": "child = os.fork()\nif not child:\n    import time; time.sleep(60); os._exit(0)\nprint(child)",
        "subprocess": "import subprocess\nprint(subprocess.Popen(['sleep', '60'], close_fds=False).pid)",
    }[how]
    victim = peer(PRIMARY + spawn + "\nsys.stdin.readline()")
    child = int(victim.hear())
    try:
        victim.crash()
        os.kill(child, 0)
        with init(prefix) as made:
            assert (made.proc_type, made.memzones()) == ("primary", [])
        assert state(runtime_dir, prefix) == (0, [])
    finally:
        os.kill(child, signal.SIGKILL)


def test_recover_adopts_objects_of_killed_primary(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    victim = peer(PRIMARY + "print(made.epoch, ring.memzone.segment.uuid); sys.stdin.readline()")
    epoch, uuid = victim.hear().split()
    victim.crash()
    with init(prefix, recover=True) as made:
        assert made.proc_type == "primary"
        assert made.epoch > int(epoch)
        ring = made.ring_create("ring", 8, exist_ok=True)
        assert (str(ring.memzone.segment.uuid), ring.memzone.segment.epoch) == (uuid, int(epoch))
        assert [participant.dead for participant in made.mempool_lookup("pool").audit().participants] == [True]
        check_contents()
        made.memzone_reserve("more", 64)
    assert state(runtime_dir, prefix) == (0, [])


def test_recovered_pool_returns_objects_cached_by_dead_process(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    victim = peer(PRIMARY + "print(pool.available); sys.stdin.readline()")
    assert victim.hear() == "63"
    victim.crash()
    with init(prefix, recover=True):
        pool = eal.mempool_lookup("pool")
        (cached,) = pool.audit().cached.values()
        assert len(cached) == 8
        taken = [pool.get() for _ in range(63)]
        assert None not in taken  # this thread claimed the slot and the cache of the dead thread
        assert pool.get() is None


def test_recover_without_stale_files_starts_empty(runtime_dir: Path, prefix: str) -> None:
    with init(prefix, recover=True) as made:
        assert (made.proc_type, made.memzones()) == ("primary", [])
    assert state(runtime_dir, prefix) == (0, [])


def test_recover_with_damaged_registry_raises_corrupt(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    victim = peer(PRIMARY + "print('ready'); sys.stdin.readline()")
    victim.hear()
    victim.crash()
    with (runtime_dir / prefix / "registry").open("r+b") as file:
        file.seek(16)
        file.write(b"\xff" * 8)
    with pytest.raises(eal.Corrupt, match="registry"):
        init(prefix, recover=True)
    with init(prefix) as made:  # without recover, init removes all files of the prefix
        assert made.memzones() == []
    assert state(runtime_dir, prefix) == (0, [])


def test_killed_secondary_leaves_objects_usable(primary: eal.Eal, peer: Peers) -> None:
    ring, pool = primary.ring_create("ring", 8), primary.mempool_create("pool", 64, 8, cache_size=8)
    victim = peer(
        """
        import sys, eal
        eal.init(file_prefix=sys.argv[1], proc_type="secondary", no_huge=True)
        eal.mempool_lookup("pool").get()
        eal.ring_lookup("ring").enqueue(7)
        print("ready")
        sys.stdin.readline()
        """
    )
    assert victim.hear() == "ready"
    victim.crash()
    assert ring.dequeue() == 7
    primary.memzone_reserve("z", 64)
    audit = pool.audit()
    assert (len(audit.in_hand), pool.available) == (1, 63)
    assert sorted(p.dead for p in audit.participants) == [True]


# --- exit without close ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leave", "status"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(3)", 3),
        ("raise RuntimeError('left')", 1),
        ("view = eal.memzone_lookup('zone').buf; sys.exit(0)", 0),
        ("import threading; threading.Thread(target=lambda: [ring.enqueue(1), pool.get()]).start()", 0),
    ],
)
def test_exit_with_atexit_removes_files(runtime_dir: Path, prefix: str, peer: Peers, leave: str, status: int) -> None:
    other = peer(PRIMARY + leave)
    assert other.wait(30) == status
    assert state(runtime_dir, prefix) == (0, [])
    output = other.error()
    assert "Exception ignored" not in output
    assert output.count("Traceback") == (1 if "raise" in leave else 0)


@pytest.mark.parametrize(
    ("leave", "status"),
    [
        ("os._exit(0)", 0),
        ("os.abort()", -signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.execv('/bin/true', ['true'])", 0),
    ],
)
@pytest.mark.parametrize("then", ["start", "cleanup"])
def test_files_left_by_exit_without_atexit_are_removed_later(
    runtime_dir: Path, prefix: str, peer: Peers, leave: str, status: int, then: str
) -> None:
    other = peer(PRIMARY + leave)
    assert other.wait(30) == status
    assert len(files(prefix)) == 2
    directory = PrefixDir(runtime_dir, prefix)
    assert directory.holder() is None
    if then == "start":
        init(prefix).close()
    else:
        cleanup.remove(directory)
    assert state(runtime_dir, prefix) == (0, [])


def test_holder_of_live_prefix_is_its_pid(primary: eal.Eal, peer: Peers) -> None:
    other = peer(
        """
        import sys
        from eal.runtime.prefix_dir import PrefixDir, prefixes, runtime_dir
        (found,) = prefixes(runtime_dir())
        print(found.prefix == sys.argv[1], found.holder())
        """
    )
    assert other.end() == f"True {os.getpid()}\n"


def test_failed_init_leaves_no_files(runtime_dir: Path, prefix: str) -> None:
    faulty: list[dict[str, Any]] = [{"lcores": [4095]}, {"memory": 1 << 30}, {"huge_dir": "/nowhere", "no_huge": None}]
    for keywords in faulty:
        with pytest.raises(eal.EalError):
            eal.init(**{"file_prefix": prefix, "no_huge": True, **keywords})
        assert state(runtime_dir, prefix) == (0, [])
    with init(prefix) as made:
        assert made.proc_type == "primary"
