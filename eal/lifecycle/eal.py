# SPDX-License-Identifier: BSD-3-Clause
"""The Eal: what a process gets by `eal.init` and gives back by `close` or `detach`."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from eal.errors import InUse, Invalid, NotFound
from eal.lifecycle import cleanup as leftovers
from eal.lifecycle import options
from eal.memory import hugepages
from eal.memory.heap import Heap, base_address
from eal.memory.registry import Registry, create_registry, open_registry
from eal.memory.segment_file import Ownership
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Entry, SegmentRecord, Table
from eal.objects.segments import Objects
from eal.pci.bar_access import BarAccess, Choice
from eal.pci.bus import Bus
from eal.probe.events import Event, Watch
from eal.probe.monitor import HotplugMonitor
from eal.probe.prober import Prober
from eal.probe.share import Rejection, Share
from eal.ring.recovery import raise_metadata_epochs
from eal.runtime import prefix_dir as runtime
from eal.runtime.lock_file import Lock, LockFile
from eal.text.sizes import MIB, align_up

log = logging.getLogger(__name__)

_START_TRIES = 100  # a closing primary removes the folder; more often than this in a row is no accident


class Child(Protocol):
    """What lives in an Eal from a layer above, such as a metadata."""

    def close(self) -> None:
        """Takes it away."""

    def abandon(self) -> None:
        """Lets go of it and leaves it in place."""


class Eal(Objects):
    """This process's use of a file_prefix; a context manager (DPDK: what rte_eal_init sets up).

    `proc_type` is "primary" or "secondary". `shares` are the metadata that were found on PCI devices, `rejections`
    the devices whose content was refused. `rest` are the arguments after `--`.
    """

    def __init__(self, given: options.Options) -> None:
        super().__init__()
        self.options = given
        self.file_prefix = runtime.check_prefix(given.file_prefix)
        self.rest = given.rest
        self.lcores = given.lcores
        self.directory = runtime.PrefixDir(runtime.runtime_dir().absolute(), self.file_prefix)
        self._stall_timeout = float(given.stall_timeout)
        self._shares: list[Share] = []
        self._guard: HotplugMonitor | None = None
        self._children: list[Child] = []
        self._closed = False
        self._close_lock = threading.RLock()
        self._locks, self.proc_type, self._registry = self._enter()
        try:
            self._set_up()
        except BaseException:
            self._leave(remove=self.proc_type == "primary" and not self._registry.table.kept and not given.recover)
            raise

    # --- starting -----------------------------------------------------------------------------------------

    def _enter(self) -> tuple[LockFile, str, Registry]:
        """Takes this process's place in the prefix: locks, role and registry."""
        for _ in range(_START_TRIES):
            self.directory.make()
            locks = LockFile(self.directory.lock)
            try:
                with locks.change():
                    if locks.is_current():
                        role, registry = self._take_role(locks)
                        locks.take(Lock.MEMBER, shared=True)
                        return locks, role, registry
            except BaseException:
                locks.close()
                raise
            locks.close()
        raise InUse(f"file_prefix {self.file_prefix!r}: its folder {self.directory.path} is removed again and again")

    def _take_role(self, locks: LockFile) -> tuple[str, Registry]:
        wish, recover = self.options.proc_type, self.options.recover
        living = locks.holder(Lock.PRIMARY)
        if living is not None:
            if wish == "primary" or recover:
                raise InUse(
                    f"file_prefix {self.file_prefix!r} has a living primary (pid {living}): end it, use another "
                    "file_prefix, or proc_type='secondary'"
                )
            return "secondary", open_registry(self.directory.registry)
        last = leftovers.last_table(self.directory)
        kept = last is not None and last.kept
        if wish == "secondary":
            if not kept:
                raise NotFound(f"file_prefix {self.file_prefix!r} has no primary: start one first")
            return "secondary", open_registry(self.directory.registry)
        locks.take(Lock.PRIMARY)
        if self.directory.registry.exists() and (recover or (kept and wish == "auto")):
            registry = open_registry(self.directory.registry)
            registry.raise_epoch()
            raise_metadata_epochs(self.directory, registry.table.epoch)
            return "primary", registry
        leftovers.remove(self.directory, keep_folder=True)
        return "primary", create_registry(self.directory.registry, last_epoch=last.epoch if last else 0)

    def _set_up(self) -> None:
        given = self.options
        primary = self.proc_type == "primary"
        self._bar_access = BarAccess(self.directory.bar_access, given.bar_access, primary=primary, lock=self.lock)
        self._bus = Bus(given.sysfs_root)
        self._prober = Prober(
            self._first_in_use,
            self._bar_access.map,
            publish=self._take_shares,
            revoke=self._revoke,
            report=self._report,
        )
        self.findings = self._prober.findings
        if not given.no_pci:
            with _no_collection():
                self._prober.probe(self._bus.devices())
        guest = bool(self._shares) or bool(given.sysfs_root or os.environ.get("EAL_SYSFS_ROOT"))
        base = given.base_virtaddr or base_address(self.file_prefix, guest=guest)
        insists = given.huge_dir is not None or given.no_huge is not None
        self._heap = Heap(self.directory, self._registry, self._choose_backend, base, self.lock, insists)
        if (insists and not given.no_huge) or (self.proc_type == "primary" and not guest):
            _ = self._heap.backend  # says now what is wrong, or that there are no hugepages
        if self.lcores is not None:
            self._run_on(self.lcores)
        if self.proc_type == "primary" and not self._registry.table.segments:
            self._take_memory()
        if self.proc_type == "primary":
            self._mend_own_rings()
        if self._shares:
            self._start_guard()

    def _choose_backend(self) -> hugepages.Backend:
        return hugepages.choose(huge_dir=self.options.huge_dir, no_huge=self.options.no_huge)

    def _first_in_use(self, entries: Iterable[Entry]) -> tuple[Entry, str] | None:
        """The first of these objects whose kind and name this prefix has in its registry."""
        self._check()
        for entry in entries if self._registry.table.entries else ():
            if self._registry.find(entry.kind, entry.name):
                return entry, f"file_prefix {self.file_prefix!r}"
        return None

    def _run_on(self, lcores: list[int]) -> None:
        """DPDK pins each lcore's thread; Python's threads are the app's own, so all of them get the whole set."""
        try:
            os.sched_setaffinity(0, lcores)
        except OSError as error:
            raise Invalid(f"lcores {lcores}: cannot run there: {error.strerror}") from error

    def _take_memory(self) -> None:
        """DPDK's -m and --socket-mem: segments of the default group, taken at the start."""
        wishes = [(SOCKET_ID_ANY, self.options.memory or 0), *enumerate(self.options.socket_mem)]
        for socket_id, mib in (wish for wish in wishes if wish[1] > 0):
            left = align_up(mib * MIB, self._heap.backend.page_size)
            while left > 0:
                size = 1 << (left.bit_length() - 1)
                self._heap.create_segment(size, group="default", socket_id=socket_id, ownership=Ownership())
                left -= size

    # --- what comes and goes ------------------------------------------------------------------------------

    def _take_shares(self, shares: list[Share]) -> None:
        self._shares = shares

    def _report(self, event: Event) -> None:
        if self._guard is not None:
            self._guard.report(event)

    def _start_guard(self) -> HotplugMonitor:
        with self._close_lock:
            self._check()
            if self._guard is None:
                self._guard = HotplugMonitor(self._prober, self._bus)
            return self._guard

    def watch(self, callback: Callable[[Event], object] | None = None, *, stale: bool = False) -> Watch:
        """Tells of metadata that come, grow and go (`Event`), until it is closed: by `callback(event)` from a thread of
        its own, or by `async for event in watch`. A metadata that is plugged, and objects that are added, can be looked
        up as long as a watch is open; what `init` found is there already, and what misses a segment is pending.

        With `stale` use of what a host that started afresh left behind raises Stale from now on. Raises Closed, and
        Invalid after --no-pci. (DPDK: rte_dev_event_callback_register.)
        """
        self._check()
        if self.options.no_pci:
            raise Invalid("this Eal looks at no PCI device (--no-pci): there is nothing to watch")
        return self._start_guard().watch(callback, stale=stale)

    # --- looking ------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Counts the primary's starts; higher after each."""
        return self.registry_table.epoch

    @property
    def shares(self) -> list[Share]:
        return list(self._shares)

    @property
    def rejections(self) -> list[Rejection]:
        return list(self.findings.rejections)

    @property
    def bar_access(self) -> Choice:
        """How the prefix maps BARs of segments: `.access` ("auto" while there is none), `.why` and `.fallbacks`."""
        return self._bar_access.choice

    @property
    def closed(self) -> bool:
        return self._closed

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Alone among all threads and processes of the prefix while it lasts. Raises Closed."""
        self._check()
        with self._locks.change():
            self._check()  # it may have been closed while this thread waited
            yield

    @property
    def registry_table(self) -> Table:
        """What the prefix has allocated now. Raises Closed."""
        self._check()
        return self._heap.registry.table

    @property
    def page_size(self) -> int:
        """Bytes of a page of the segments that are made where nobody says of which."""
        self._check()
        return self._heap.backend.page_size

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is reserved and made inside is taken back, segments and all, if it raises. Nothing may be freed inside.
        Other processes of the prefix wait meanwhile.
        """
        with self.lock():
            before = self.registry_table
            try:
                yield
            except BaseException:
                self._heap.restore(before)
                raise

    def remove_empty_segments(self, wanted: Callable[[SegmentRecord], bool]) -> list[SegmentRecord]:
        """Gives the pages of segments back that nothing lies in, as far as `wanted`. None while another process of the
        prefix lives: it knows segments by their numbers.
        """
        with self.lock():
            if self._locks.holder(Lock.MEMBER) is not None:
                return []
            return self._heap.remove_empty_segments(wanted)

    def children(self) -> list[Child]:
        return self._children.copy()

    def adopt(self, child: Child) -> None:
        """Ties something of a layer above to this Eal's life."""
        self._check()
        self._children.append(child)

    def disown(self, child: Child) -> None:
        if child in self._children:
            self._children.remove(child)

    # --- ending -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends this process's use. A primary takes everything away, unless it was kept before (`detach`).

        May be called twice, with views alive (their pages stay until they go) and with peers still there (which see
        the segments' retired mark).
        """
        self._end(keep=False)

    def detach(self) -> None:
        """Ends this process's use and leaves all in place; a primary marks it kept, so that the next process of the
        prefix attaches to it.
        """
        self._end(keep=True)

    def _end(self, *, keep: bool) -> None:
        with self._close_lock:
            if self._closed:
                return
            if keep and self.proc_type == "primary":
                with self._locks.change():
                    self._heap.registry.set_kept()
            remove = self.proc_type == "primary" and not self._heap.registry.table.kept
            for child in reversed(self._children.copy()):
                child.close() if remove else child.abandon()
            self._leave(remove=remove)

    def _leave(self, *, remove: bool) -> None:
        """Lets go of everything; with `remove`, files and all. Not while another thread changes anything."""
        if self._guard is not None:  # before the lock, for which a callback may wait
            self._guard.close()
        with self._locks.change():
            self._closed = True
            self._let_go()
            if remove and self._locks.is_current():
                leftovers.remove(self.directory)
        self._locks.close()

    def _let_go(self) -> None:
        """Handles first, then what they lie in."""
        for _, handle in self._handles.values():
            if hasattr(handle, "close"):
                handle.close()
        self._handles.clear()
        heap: Heap | None = getattr(self, "_heap", None)
        if heap is not None:
            for segment in heap.segments.values():
                segment.close()
        self._registry.close()
        if hasattr(self, "_prober"):
            self._prober.close()

    def abandon(self) -> None:
        """In a forked child: nothing shared is touched, every handle raises Closed."""
        self._closed = True
        for child in self._children.copy():
            child.abandon()
        if self._guard is not None:
            self._guard.abandon()
        self._let_go()
        self._locks.abandon()

    def __enter__(self) -> Eal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.proc_type
        return f"<Eal {self.file_prefix!r} {state}>"


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's garbage collector: thousands of entries are made, and none of them is garbage, but it would look
    at them again and again, for a third of the time of an init.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
