# SPDX-License-Identifier: BSD-3-Clause
"""Watches: how an app is told that metadata came, grew, or went while it runs."""

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
_JOIN = 2.0  # seconds that close() waits for a callback that is under way


@dataclass(frozen=True)
class Event:
    """What happened to a metadata: its name, and the PCI address of its device.

    - plugged: it came with all its segments; its `objects` can be looked up.
    - pending: it, or its newer table, is there, but not all of its segments yet. `reason` names what is missing.
    - added: there are more objects in it (`objects` are those), or it was taken up again after an unplug that did not
      come to pass (`objects` are all).
    - unplugged: it goes, announced, or is gone; its `objects` raise Detached, and `reason` says which.
    - rejected: it cannot be used, for `reason`.
    - stale: its host started afresh, and nobody serves its `objects` any more.

    `objects` are pairs of kind ("memzone", "ring", "mempool") and name.
    """

    kind: EventKind
    metadata: str
    address: str
    objects: tuple[tuple[str, str], ...] = ()
    reason: str = ""


def names_of(entries: Iterable[Entry]) -> tuple[tuple[str, str], ...]:
    """Objects as an event names them."""
    return tuple([(_KINDS[entry.kind], entry.name) for entry in entries])


class Watch:
    """Tells of events until it is closed: by a callback from a thread of its own, by `async for`, or both.

    A context manager. Several may be open at a time; each tells of everything.
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
        self._early: deque[Event] = deque(maxlen=4096)  # told before anybody iterates
        self._thread: threading.Thread | None = None
        if callback is not None:
            self._thread = threading.Thread(target=self._call, name="eal-watch", daemon=True)
            self._thread.start()

    def tell(self, event: Event) -> None:
        """Passes an event on; never waits."""
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
        """Events from now on, and without a callback those since the watch was opened; ends when it is closed."""
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
        """Ends it: no callback begins after this, and every `async for` ends. May be called twice, from a callback
        too.
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
        """In a forked child: it tells of nothing."""
        self.closed = True
        self._lock = threading.Lock()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Loop:
    """Events on their way to one `async for`, from whatever thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(self, event: Event | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)
        except RuntimeError:
            log.debug("a loop was closed before its watch was: %s is not heard there", event)

    async def get(self) -> Event | None:
        return await self._queue.get()
