# SPDX-License-Identifier: BSD-3-Clause
"""Hotplug monitor: the thread that handles plug, update and unplug of shares."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from eal._native import ffi, lib
from eal.pci.bus import Bus
from eal.probe.events import Event, Watch
from eal.probe.prober import Prober
from eal.probe.share import Share

log = logging.getLogger(__name__)

_TICK = 0.05  # seconds between two polls; a host considers a monitor dead after 2 s without a heartbeat
_RETRY = 0.25  # seconds between two attempts to accept a pending metadata file


class HotplugMonitor:
    """Handles plug, update and unplug of an Eal's shares; adopts new shares while a watch is open.

    The thread is a daemon, so it does not keep the process from ending. The prober reports its results to the Eal.
    """

    def __init__(self, prober: Prober, bus: Bus) -> None:
        self._prober = prober
        self._bus = bus
        self._lock = threading.Lock()  # protects the watches
        self._watches: list[Watch] = []
        self._new: list[Watch] = []  # opened, but not yet informed of pending and stale shares
        self._ended = False
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._shares: list[Share] = []
        self._polled: Any = ffi.NULL
        self._keep: list[Any] = []  # the polled pages
        self._retry_at = 0.0
        self._retry = True
        self._informed = False  # a watch was opened since the last attempt to accept metadata files
        self._thread = threading.Thread(target=self._run, name="eal-hotplug", daemon=True)
        bus.listen()
        self._thread.start()

    # --- watches, from any thread -----------------------------------------------------------------------

    def watch(self, callback: Callable[[Event], object] | None, *, stale: bool) -> Watch:
        """Open a watch; it first receives the shares that are pending or stale."""
        made = Watch(callback, self._unwatch, stale=stale)
        with self._lock:
            self._new.append(made)
        self._wake()
        return made

    def _unwatch(self, watch: Watch) -> None:
        with self._lock:
            for watches in (self._watches, self._new):
                if watch in watches:
                    watches.remove(watch)

    def report(self, event: Event) -> None:
        """Deliver an event to every watch, in the monitor's thread; also to a watch opened just now."""
        self._inform(besides=event)
        with self._lock:
            watches = self._watches.copy()
        for watch in watches:
            watch.deliver(event)

    def _wake(self) -> None:
        os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """End the thread and every watch."""
        self._ended = True
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            watches = [*self._watches, *self._new]
        for watch in watches:
            watch.close()
        self.abandon()

    def abandon(self) -> None:
        """Close descriptors. Also in a forked child, where the thread does not exist and locks may stay held."""
        for watch in [*self._watches, *self._new]:
            watch.abandon()
        self._keep.clear()
        self._bus.close()
        if self._wakeup >= 0:
            os.close(self._wakeup)
            self._wakeup = -1

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:  # the first poll may wait: `init` has just probed
            changed = self._bus.wait(_TICK, self._wakeup)
            if self._ended:
                return
            try:
                self._pass(changed)
            except Exception:
                log.exception("hotplug monitor: a pass failed; continuing")

    def _pass(self, changed: bool) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        prober = self._prober
        self._retry = changed or time.monotonic() >= self._retry_at
        try:
            if changed or prober.devices.unsettled:
                gone = prober.devices.update(self._bus.devices())
                if gone:
                    prober.lose(gone)
            self._poll()
            self._inform()
            if self._informed or self._retry:
                self._informed = False
                self._retry_at = time.monotonic() + _RETRY
                prober.accept_all(only_released=not self._watches)
        finally:
            prober.devices.close()

    def _poll(self) -> None:
        """Send a heartbeat for each share and dispatch pending events."""
        if self._shares is not self._prober.findings.shares:
            self._list_shares()
        if lib.ivs_hotplug_poll(self._polled, len(self._shares)) == 0:
            return
        for number, share in enumerate(self._shares):
            self._dispatch(share, self._polled[number].events)

    def _dispatch(self, share: Share, events: int) -> None:
        prober = self._prober
        if share not in prober.findings.shares:
            return  # removed together with another share
        if events & lib.IVS_EVENT_GONE:
            log.warning("metadata %r: the content of device %s has changed", share.name, share.address)
            prober.devices.forget(share.device)
            prober.lose([share.device])
        elif events & lib.IVS_EVENT_LEAVING:
            prober.release(share)
        else:
            if events & lib.IVS_EVENT_RETIRED and not share.stale:
                prober.mark_stale(share, "its host retired the segments: it ended or made a fresh start")
            if events & lib.IVS_EVENT_TABLE and self._watches and (self._retry or not share.unused):
                prober.adopt_table(share)

    def _list_shares(self) -> None:
        """Fill the array of polled pages, once per change of the shares."""
        self._shares = self._prober.findings.shares
        self._polled = ffi.new("struct ivs_polled_share[]", max(len(self._shares), 1))
        self._keep = []
        for polled, share in zip(self._polled, self._shares, strict=False):
            file = share.file.mapping.pointer()
            bases = [segment.mapping.pointer() for segment in share.segments]
            segments = ffi.new("void *[]", bases)
            polled.file, polled.uuid, polled.selector = file, share.uuid.bytes, share.table.selector
            polled.segments, polled.n_segments = ffi.cast("const void *const *", segments), len(bases)
            self._keep += [file, bases, segments]
            if share.slot is not None and share.slot.index >= 0:
                page = share.slot.page.pointer()
                polled.page, polled.owner, polled.slot = page, share.slot.owner, share.slot.index
                self._keep.append(page)

    def _inform(self, besides: Event | None = None) -> None:
        """Send each new watch the pending and stale shares, except `besides`, which it receives next."""
        with self._lock:
            new, self._new = self._new, []
            self._watches += new
        for watch in new:
            if watch.stale and not self._prober.refuse_stale:
                self._prober.refuse_stale = True
                for share in self._prober.findings.shares:
                    if share.stale:
                        self._prober.refuse(share)
            for event in self._prober.outstanding():
                if event != besides:
                    watch.deliver(event)
        self._informed |= bool(new)
