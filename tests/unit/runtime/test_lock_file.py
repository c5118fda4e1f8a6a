# SPDX-License-Identifier: BSD-3-Clause
"""eal.runtime.lock_file: locks between threads and between processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from eal.errors import Closed
from eal.runtime.lock_file import Lock, LockFile, holder_of

HOLD = """
import sys
from pathlib import Path
from eal.runtime.lock_file import Lock, LockFile
locks = LockFile(Path(sys.argv[2]))
print(locks.acquire(Lock[sys.argv[3]], shared=sys.argv[4] == "shared"))
sys.stdin.readline()
"""


@pytest.fixture
def locks(tmp_path: Path) -> LockFile:
    return LockFile(tmp_path / "lock")


def test_lock_of_live_process_is_refused_until_it_ends(locks: LockFile, peer: object) -> None:
    other = peer(HOLD, locks.path, "PRIMARY", "exclusive")  # type: ignore[operator]
    assert other.hear() == "True"
    assert locks.holder(Lock.PRIMARY) == other.pid
    assert locks.holder(Lock.MEMBER) is None
    assert locks.acquire(Lock.PRIMARY) is False
    assert locks.acquire(Lock.MEMBER, shared=True) is True
    other.crash()
    assert locks.holder(Lock.PRIMARY) is None
    assert locks.acquire(Lock.PRIMARY) is True


def test_shared_lock_excludes_exclusive_lock(locks: LockFile, peer: object) -> None:
    assert locks.acquire(Lock.MEMBER, shared=True)
    other = peer(HOLD, locks.path, "MEMBER", "shared")  # type: ignore[operator]
    assert other.hear() == "True"
    assert locks.holder(Lock.MEMBER) == other.pid
    second = peer(HOLD, locks.path, "MEMBER", "exclusive")  # type: ignore[operator]
    assert second.hear() == "False"


def test_lock_of_killed_process_is_free_while_its_child_lives(locks: LockFile, peer: object) -> None:
    other = peer(  # type: ignore[operator]
        """
        import os, sys, time
        from pathlib import Path
        from eal.runtime.lock_file import Lock, LockFile
        locks = LockFile(Path(sys.argv[2]))
        assert locks.acquire(Lock.PRIMARY)
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child)
        time.sleep(60)
        """,
        locks.path,
    )
    child = int(other.hear())
    try:
        assert not locks.acquire(Lock.PRIMARY)
        other.crash()
        os.kill(child, 0)
        assert locks.acquire(Lock.PRIMARY)
    finally:
        os.kill(child, 9)


def test_nested_change_excludes_other_threads(locks: LockFile) -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with locks.change(), locks.change():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)


def test_change_is_released_after_outermost_block_and_after_exception(locks: LockFile, peer: object) -> None:
    def free_for_others() -> bool:
        return peer(HOLD, locks.path, "CHANGE", "exclusive").hear() == "True"  # type: ignore[operator]

    def fail() -> None:
        with locks.change():
            with locks.change():
                pass
            assert not free_for_others()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert free_for_others()


def test_change_excludes_other_processes(locks: LockFile, peer: object, tmp_path: Path) -> None:
    """Two processes increment a number in a file; no increment is lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    script = """
    import sys
    from pathlib import Path
    from eal.runtime.lock_file import LockFile
    locks, counter = LockFile(Path(sys.argv[2])), Path(sys.argv[3])
    print("ready")
    sys.stdin.readline()
    for _ in range(500):
        with locks.change():
            counter.write_text(str(int(counter.read_text()) + 1))
    """
    peers = [peer(script, locks.path, counter) for _ in range(2)]  # type: ignore[operator]
    for other in peers:
        assert other.hear() == "ready"
    for other in peers:
        other.say()
    for other in peers:
        other.end()
    assert counter.read_text() == "1000"


def test_removed_lock_file_is_not_current(locks: LockFile) -> None:
    assert locks.is_current()
    locks.path.unlink()
    assert not locks.is_current()
    LockFile(locks.path).close()
    assert not locks.is_current()


def test_holder_of_returns_pid_until_release(tmp_path: Path, peer: object) -> None:
    assert holder_of(tmp_path / "none", Lock.MEMBER) is None
    other = peer(HOLD, tmp_path / "lock", "MEMBER", "shared")  # type: ignore[operator]
    other.hear()
    assert holder_of(tmp_path / "lock", Lock.MEMBER) == other.pid
    other.end()
    assert holder_of(tmp_path / "lock", Lock.MEMBER) is None


def test_second_close_is_ignored_and_change_raises_closed(locks: LockFile) -> None:
    locks.close()
    locks.close()
    with pytest.raises(Closed), locks.change():
        pass
