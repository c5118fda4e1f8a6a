# SPDX-License-Identifier: BSD-3-Clause
"""Watches: report shares that are plugged, extended or removed while the application runs."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from eal.metadata.records import Entry, Kind

log = logging.getLogger(__name__)

EventKind = Literal["plugged", "pending", "added", "unplugged", "rejected", "stale"]

_KINDS = {kind: kind.name.lower() for kind in Kind}
_JOIN = 2.0  # seconds that close() waits for a callback in progress


@dataclass(frozen=True)
class Event:
    """A change of a share: its name, and the PCI address of its device.

    - plugged: the share is present with all its segments; lookups find its `objects`.
    - pending: the metadata file, or its newer table, is present, but not all of its segments. `reason` names a missing
      one.
    - added: the share has more objects (`objects` are the new ones), or it was adopted again after an announced unplug
      that did not take place (`objects` are all).
    - unplugged: the share is about to be removed or was removed; its `objects` raise Detached, and `reason` says which.
    - rejected: the share cannot be used, for `reason`.
    - stale: its host made a fresh start or ended; no process serves its `objects`.

    `objects` are pairs of kind ("memzone", "ring", "mempool") and name.
    """

    kind: EventKind
    metadata: str
    address: str
    objects: tuple[tuple[str, str], ...] = ()
    reason: str = ""


def names_of(entries: Iterable[Entry]) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of each entry, as in `Event.objects`."""
    return tuple([(_KINDS[entry.kind], entry.name) for entry in entries])


class Watch:
    """A subscription to events until it is closed: by a callback in a thread of its own, by `async for`, or both.

    A context manager. Several may be open at the same time; each receives every event.
    (DPDK: rte_dev_event_callback_register.)
    """

    def __init__(
        self, callback: Callable[[Event], object] | None, end: Callable[[Watch], None], *, stale: bool
    ) -> None:
        self.stale = stale
        self._callback = callback
        self._end = end
        self.closed = False
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._loops: list[_Loop] = []
        self._early: deque[Event] = deque(maxlen=4096)  # events before the first `async for`
        self._thread: threading.Thread | None = None
        if callback is not None:
            self._thread = threading.Thread(target=self._call, name="eal-watch", daemon=True)
            self._thread.start()

    def deliver(self, event: Event) -> None:
        """Deliver an event; never blocks."""
        if self._callback is not None:
            self._waiting.put(event)
        with self._lock:
            if not self._loops and self._callback is None:
                self._early.append(event)
            for loop in self._loops:
                loop.put(event)

    def _call(self) -> None:
        assert self._callback is not None
        while (event := self._waiting.get()) is not None and not self.closed:
            try:
                self._callback(event)
            except Exception:
                log.exception("the callback of a watch failed for %s", event)

    def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events from now on, and without a callback those since the watch was opened; end when it is closed."""
        loop = _Loop()
        with self._lock:
            for event in self._early:
                loop.put(event)
            self._early.clear()
            if self.closed:
                loop.put(None)
            else:
                self._loops.append(loop)
        return self._events(loop)

    async def _events(self, loop: _Loop) -> AsyncIterator[Event]:
        try:
            while (event := await loop.get()) is not None:
                yield event
        finally:
            with self._lock:
                if loop in self._loops:
                    self._loops.remove(loop)

    def close(self) -> None:
        """Close the watch: no callback starts after this, and every `async for` ends. May be called twice, also from a
        callback.
        """
        with self._lock:
            if self.closed:
                return
            self.closed = True
            for loop in self._loops:
                loop.put(None)
        self._waiting.put(None)
        self._end(self)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN)

    def abandon(self) -> None:
        """Stop delivering events, in a forked child."""
        self.closed = True
        self._lock = threading.Lock()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Loop:
    """Events on their way from any thread to one `async for`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(self, event: Event | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)
        except RuntimeError:
            log.debug("event loop closed before its watch; event %s is not delivered", event)

    async def get(self) -> Event | None:
        return await self._queue.get()
