# SPDX-License-Identifier: BSD-3-Clause
"""The guard: a thread that answers for its process when shares come, change and go."""

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

_TICK = 0.05  # seconds between looks at the shares; a host takes a guard for dead that is silent for 2
_RETRY = 0.25  # seconds between looks at metadata that wait for something


class HotplugMonitor:
    """Looks after the shares of an Eal, and takes up new ones as long as somebody watches.

    The thread is a daemon: it keeps no process from ending. What it finds goes to the Eal by the prober's hooks.
    """

    def __init__(self, prober: Prober, bus: Bus) -> None:
        self._prober = prober
        self._bus = bus
        self._lock = threading.Lock()  # for the watches
        self._watches: list[Watch] = []
        self._fresh: list[Watch] = []  # opened, and not told yet what is pending and stale
        self._ended = False
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._shares: list[Share] = []
        self._looked: Any = ffi.NULL
        self._keep: list[Any] = []  # the pages that are looked at
        self._retry_at = 0.0
        self._retry = True
        self._greeted = False  # there are watches that new metadata are to be taken for
        self._thread = threading.Thread(target=self._run, name="eal-guard", daemon=True)
        bus.listen()
        self._thread.start()

    # --- watches, from any thread -------------------------------------------------------------------------

    def watch(self, callback: Callable[[Event], object] | None, *, stale: bool) -> Watch:
        """Opens a watch; it is told first what is pending and stale by now."""
        made = Watch(callback, self._unwatch, stale=stale)
        with self._lock:
            self._fresh.append(made)
        self._ring()
        return made

    def _unwatch(self, watch: Watch) -> None:
        with self._lock:
            for watches in (self._watches, self._fresh):
                if watch in watches:
                    watches.remove(watch)

    def report(self, event: Event) -> None:
        """Tells every watch, in the guard's thread; a watch that was opened this moment too."""
        self._greet(besides=event)
        with self._lock:
            watches = self._watches.copy()
        for watch in watches:
            watch.tell(event)

    def _ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Ends the thread and every watch."""
        self._ended = True
        self._ring()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            watches = [*self._watches, *self._fresh]
        for watch in watches:
            watch.close()
        self.abandon()

    def abandon(self) -> None:
        """Lets go of descriptors. In a forked child too, where there is no thread and locks may be held for good."""
        for watch in [*self._watches, *self._fresh]:
            watch.abandon()
        self._keep.clear()
        self._bus.close()
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1

    # --- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:  # what was probed a moment ago can wait for the first tick, and an init is not held up
            changed = self._bus.wait(_TICK, self._bell)
            if self._ended:
                return
            try:
                self._pass(changed)
            except Exception:
                log.exception("the guard failed in a pass; it goes on")

    def _pass(self, changed: bool) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        prober = self._prober
        self._retry = changed or time.monotonic() >= self._retry_at
        try:
            if changed or prober.devices.unsettled:
                gone = prober.devices.update(self._bus.devices())
                if gone:
                    prober.lose(gone)
            self._look()
            self._greet()
            if self._greeted or self._retry:
                self._greeted = False
                self._retry_at = time.monotonic() + _RETRY
                prober.take(only_known=not self._watches)
        finally:
            prober.devices.close()

    def _look(self) -> None:
        """Beats for every share, and sees to those that have news."""
        if self._shares is not self._prober.findings.shares:
            self._list_shares()
        if lib.ivs_hotplug_poll(self._looked, len(self._shares)) == 0:
            return
        for number, share in enumerate(self._shares):
            self._see_to(share, self._looked[number].events)

    def _see_to(self, share: Share, news: int) -> None:
        prober = self._prober
        if share not in prober.findings.shares:
            return  # it went with another one
        if news & lib.IVS_EVENT_GONE:
            log.warning("metadata %r: device %s shows something else", share.name, share.address)
            prober.devices.forget(share.device)
            prober.lose([share.device])
        elif news & lib.IVS_EVENT_LEAVING:
            prober.let_go(share)
        else:
            if news & lib.IVS_EVENT_RETIRED and not share.stale:
                prober.retire(share, "its host retired the segments: it has ended, or started afresh")
            if news & lib.IVS_EVENT_TABLE and self._watches and (self._retry or not share.unused):
                prober.grow(share)

    def _list_shares(self) -> None:
        """Lists where to look, once for each change of the shares."""
        self._shares = self._prober.findings.shares
        self._looked = ffi.new("struct ivs_polled_share[]", max(len(self._shares), 1))
        self._keep = []
        for looked, share in zip(self._looked, self._shares, strict=False):
            file = share.file.mapping.pointer()
            bases = [segment.mapping.pointer() for segment in share.segments]
            segments = ffi.new("void *[]", bases)
            looked.file, looked.uuid, looked.selector = file, share.uuid.bytes, share.table.selector
            looked.segments, looked.n_segments = ffi.cast("const void *const *", segments), len(bases)
            self._keep += [file, bases, segments]
            if share.guard is not None and share.guard.index >= 0:
                page = share.guard.page.pointer()
                looked.page, looked.owner, looked.slot = page, share.guard.owner, share.guard.index
                self._keep.append(page)

    def _greet(self, besides: Event | None = None) -> None:
        """Tells new watches how things stand, besides what they are told next."""
        with self._lock:
            fresh, self._fresh = self._fresh, []
            self._watches += fresh
        for watch in fresh:
            if watch.stale and not self._prober.refuse_stale:
                self._prober.refuse_stale = True
                for share in self._prober.findings.shares:
                    if share.stale:
                        self._prober.refuse(share)
            for event in self._prober.standing():
                if event != besides:
                    watch.tell(event)
        self._greeted |= bool(fresh)
