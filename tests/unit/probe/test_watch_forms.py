# SPDX-License-Identifier: BSD-3-Clause
"""Watches by callback and by `async for`, several at once, and their end with the watch, the Eal and the process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
from tests.hotplug import EventLog, until


def eal_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("eal-")]


# --- asyncio ------------------------------------------------------------------------------------------------


def test_async_for_ends_when_the_watch_is_closed(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    async def run(watch: eal.Watch) -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = []
        metadata = lab.metadata("vm0")
        await asyncio.to_thread(lab.plug_all, metadata)
        async for event in watch:
            seen.append((event.kind, event.metadata))
            if event.kind == "plugged":
                await asyncio.to_thread(lab.unplug, metadata)
            elif event.kind == "unplugged":
                watch.close()
        return seen

    with guest():
        watch = eal.watch()
        seen = asyncio.run(run(watch))
        assert seen == [("plugged", "vm0"), ("unplugged", "vm0")]
        assert watch.closed


def test_events_before_the_first_iteration_are_kept(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    async def first(watch: eal.Watch) -> eal.Event:
        async for event in watch:
            return event
        raise AssertionError

    with guest() as made, made.watch() as watch:
        lab.plug_all(lab.metadata("vm0"))
        until(lambda: made.shares)
        assert asyncio.run(first(watch)).kind == "plugged"
        # the first iteration has ended; the next one receives later events
        lab.plug_all(lab.metadata("vm1"))
        until(lambda: len(made.shares) == 2)
        assert asyncio.run(first(watch)).metadata == "vm1"


def test_two_iterations_receive_the_same_events(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    async def hear(watch: eal.Watch) -> list[str]:
        return [event.metadata async for event in watch]

    async def run(watch: eal.Watch) -> list[list[str]]:
        tasks = [asyncio.create_task(hear(watch)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.to_thread(lab.plug_all, lab.metadata("vm0"))
        await asyncio.to_thread(until, lambda: eal.current().shares)
        watch.close()
        return await asyncio.gather(*tasks)

    with guest():
        assert asyncio.run(run(eal.watch())) == [["vm0"], ["vm0"]]


def test_closing_the_eal_ends_async_for(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    async def run(made: eal.Eal) -> None:
        watch = made.watch()
        asyncio.get_running_loop().call_later(0.1, lambda: threading.Thread(target=made.close).start())
        async for _ in watch:
            pass

    asyncio.run(asyncio.wait_for(run(guest()), 5))


# --- callbacks ----------------------------------------------------------------------------------------------


def test_callbacks_run_in_a_thread_of_the_watch(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    """A slow callback delays neither the monitor nor another watch."""
    release, threads, log = threading.Event(), [], EventLog()

    def slow(event: eal.Event) -> None:
        threads.append(threading.current_thread())
        release.wait(10)

    with guest() as made, made.watch(slow), made.watch(log):
        metadata = lab.metadata("vm0")
        lab.plug_all(metadata)
        log.next("plugged")
        before = metadata.monitor_slots()[0].heartbeat
        until(lambda: metadata.monitor_slots()[0].heartbeat > before + 2)
        lab.unplug(metadata)
        log.next("unplugged")
        until(lambda: threads)
        assert threads[0] is not threading.main_thread()
        release.set()


def test_failing_callback_is_called_again(
    lab: Any, guest: Callable[..., eal.Eal], caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog()

    def fail(event: eal.Event) -> None:
        log(event)
        raise RuntimeError("mine")

    with guest() as made, made.watch(fail):
        metadata = lab.metadata("vm0")
        lab.plug_all(metadata)
        log.next("plugged")
        lab.unplug(metadata)
        log.next("unplugged")
    assert "mine" in caplog.text


def test_callback_may_use_and_close_everything(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    done = threading.Event()
    made = guest()

    def callback(event: eal.Event) -> None:
        assert made.ring_lookup("vm0 ring").enqueue(1)
        made.memzone_reserve("own", 64)
        watch.close()
        made.close()
        done.set()

    watch = made.watch(callback)
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    assert done.wait(10)
    assert metadata.ring("vm0 ring").dequeue() == 1
    until(lambda: not eal_threads())


# --- end ----------------------------------------------------------------------------------------------------


def test_close_is_fast_and_leaves_no_thread_and_no_descriptor(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    guest().close()  # descriptors that are opened once
    before = os.listdir("/proc/self/fd")
    made = guest()
    watch = made.watch(lambda event: None)
    assert len(eal_threads()) == 2
    began = time.monotonic()
    made.close()
    assert time.monotonic() - began < 0.5
    assert eal_threads() == []
    assert watch.closed
    assert os.listdir("/proc/self/fd") == before
    assert metadata.monitor_slots() == []
    with pytest.raises(eal.Closed):
        made.watch()


def test_no_monitor_thread_without_shares(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    with guest():
        assert eal_threads() == []


def test_new_share_is_not_accepted_without_a_watch(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    lab.plug_all(lab.metadata("vm0"))
    with guest() as made:
        with made.watch():
            pass
        lab.plug_all(lab.metadata("vm1"))
        time.sleep(0.4)
        assert [share.name for share in made.shares] == ["vm0"]
        with made.watch(log := EventLog()):
            assert log.next("plugged").metadata == "vm1"


def test_watch_with_no_pci_raises_invalid(runtime_dir: Path, prefix: str) -> None:
    with (
        eal.init(["--no-pci"], file_prefix=prefix, no_huge=True) as made,
        pytest.raises(eal.Invalid, match="--no-pci"),
    ):
        made.watch()


def test_forked_child_has_no_monitor_and_does_not_affect_the_parent(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()) as watch:
        child = os.fork()
        if child == 0:
            try:
                watch.close()
                alone = threading.active_count() == 1 and watch.closed
                os._exit(0 if alone and raises_closed(made.watch) and raises_closed(eal.watch) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        (slot,) = metadata.monitor_slots()
        until(lambda: metadata.monitor_slots()[0].heartbeat > slot.heartbeat + 2)
        lab.unplug(metadata)
        log.next("unplugged")


def raises_closed(call: Callable[[], object]) -> bool:
    try:
        call()
    except eal.Closed:
        return True
    return False


def test_interpreter_exits_with_a_running_monitor(lab: Any, runtime_dir: Path, prefix: str) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    script = """
        import sys, time, eal
        made = eal.init(file_prefix=sys.argv[1], no_huge=True, sysfs_root=sys.argv[2])
        watch = made.watch(lambda event: time.sleep(60))
        view = made.memzone_lookup("vm0 zone").buf
        print(len(made.shares))
    """
    began = time.monotonic()
    command = [sys.executable, "-P", "-c", textwrap.dedent(script), prefix, str(lab.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert time.monotonic() - began < 10
    assert metadata.monitor_slots() == []
