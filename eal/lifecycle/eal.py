# SPDX-License-Identifier: BSD-3-Clause
"""Eal: a process's use of a file_prefix, from `eal.init` to `close`, `detach` or a fork."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Protocol

from eal.errors import Invalid
from eal.lifecycle.parts import Parts
from eal.metadata.records import SegmentRecord, Table
from eal.objects.mempools import MempoolMethods
from eal.objects.memzones import MemzoneMethods
from eal.objects.rings import RingMethods
from eal.objects.segments import SegmentMethods
from eal.pci.bar_access import Choice
from eal.probe.events import Event, Watch
from eal.probe.share import Rejection, Share


class Child(Protocol):
    """An object of a higher layer, such as a metadata file, that the Eal closes before itself."""

    def close(self) -> None:
        """Remove the object."""

    def abandon(self) -> None:
        """Release this process's handles of the object and leave it in place."""


class Eal(MemzoneMethods, SegmentMethods, RingMethods, MempoolMethods):
    """This process's use of a file_prefix; a context manager (DPDK: the state that rte_eal_init sets up).

    `proc_type` is "primary" or "secondary". `shares` are the metadata files found on PCI devices, `rejections` the
    devices whose content failed validation. `rest` are the arguments after `--`.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._objects = parts.objects
        self._children: list[Child] = []
        self._close_lock = threading.RLock()
        self.options = parts.options
        self.rest = parts.options.rest
        self.lcores = parts.options.lcores
        self.directory = parts.membership.directory
        self.file_prefix = self.directory.prefix
        self.proc_type = parts.membership.proc_type
        self.findings = parts.prober.findings

    # --- state --------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Return the epoch, which each new primary of the file_prefix raises. Raise Closed."""
        return self.registry_table.epoch

    @property
    def shares(self) -> list[Share]:
        """Return the shares whose objects the lookups find."""
        return list(self._objects.zones.shares)

    @property
    def rejections(self) -> list[Rejection]:
        """Return the devices that are not used, with the reasons."""
        return list(self.findings.rejections)

    @property
    def bar_access(self) -> Choice:
        """Return how the file_prefix maps BARs: `.access` ("auto" before the first BAR), `.why` and `.fallbacks`."""
        return self._parts.bar_access.choice

    @property
    def closed(self) -> bool:
        """Return whether the Eal was closed, was detached, or belongs to the parent of this forked process."""
        return self._parts.membership.closed

    @property
    def registry_table(self) -> Table:
        """Return the current segments and objects of the file_prefix. Raise Closed."""
        self._objects.check_open()
        return self._parts.membership.registry.table

    @property
    def page_size(self) -> int:
        """Return the page size in bytes of segments created without `page_size` and `huge_dir`. Raise Closed."""
        self._objects.check_open()
        return self._objects.heap.backend.page_size

    def watch(self, callback: Callable[[Event], object] | None = None, *, stale: bool = False) -> Watch:
        """Report shares that come and go; see `eal.watch` (DPDK: rte_dev_event_callback_register)."""
        self._objects.check_open()
        if self.options.no_pci:
            raise Invalid("watch() requires the PCI devices, which --no-pci excludes; call eal.init() without --no-pci")
        with self._close_lock:
            self._objects.check_open()
            monitor = self._parts.monitor.start(self._parts.prober, self._parts.bus)
        return monitor.watch(callback, stale=stale)

    # --- changes of several objects -----------------------------------------------------------------------

    def lock(self) -> AbstractContextManager[None]:
        """Return a context manager that excludes all other threads and processes of the file_prefix. Raise Closed."""
        return self._parts.membership.lock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Roll back all reservations and new segments of the block if it raises. Nothing may be freed in the block.

        Other processes of the file_prefix that create or free objects wait until the block ends.
        """
        with self.lock():
            before = self.registry_table
            try:
                yield
            except BaseException:
                self._objects.heap.restore(before)
                raise

    def remove_empty_segments(self, wanted: Callable[[SegmentRecord], bool]) -> list[SegmentRecord]:
        """Remove the segments without objects that satisfy `wanted`; return their records.

        Remove none while another process of the file_prefix is alive, because it identifies segments by position.
        """
        with self.lock():
            if not self._parts.membership.is_alone():
                return []
            return self._objects.heap.remove_empty_segments(wanted)

    # --- children -----------------------------------------------------------------------------------------

    def children(self) -> list[Child]:
        """Return the objects that this Eal closes before itself."""
        return self._children.copy()

    def adopt(self, child: Child) -> None:
        """Close an object of a higher layer together with this Eal. Raise Closed."""
        self._objects.check_open()
        self._children.append(child)

    def disown(self, child: Child) -> None:
        """Forget a child that was closed before."""
        if child in self._children:
            self._children.remove(child)

    # --- end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End this process's use (DPDK: rte_eal_cleanup). A primary removes all files, unless they were kept.

        May be called twice, with views alive (their pages stay mapped until the views are deleted), and with live
        peers (they see the retired flag of the segments).
        """
        self._end(keep=False)

    def detach(self) -> None:
        """End this process's use and leave all objects in place; a primary marks the files as kept.

        The next process of the file_prefix attaches to kept files.
        """
        self._end(keep=True)

    def _end(self, *, keep: bool) -> None:
        membership = self._parts.membership
        with self._close_lock:
            if membership.closed:
                return
            if keep and membership.is_primary:
                membership.keep_files()
            remove = membership.owns_files
            for child in reversed(self._children.copy()):
                child.close() if remove else child.abandon()
            self._parts.monitor.close()  # before CHANGE, because a callback may wait for CHANGE
            membership.leave(self._parts.resources, remove=remove)

    def abandon(self) -> None:
        """Release everything in a forked child: write no shared memory, acquire no lock, let handles raise Closed."""
        membership = self._parts.membership
        membership.closed = True
        for child in self._children.copy():
            child.abandon()
        self._parts.monitor.abandon()
        membership.abandon(self._parts.resources)

    def __enter__(self) -> Eal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.proc_type
        return f"<Eal {self.file_prefix!r} {state}>"
