# SPDX-License-Identifier: BSD-3-Clause
"""The parts of an Eal, created in the order of their dependencies, before the Eal itself."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from eal.errors import Invalid
from eal.lifecycle.membership import Membership, join
from eal.lifecycle.options import Options
from eal.memory import hugepages
from eal.memory.heap import Heap, base_address
from eal.memory.segment_file import Ownership
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Entry
from eal.objects.table import ObjectTable
from eal.objects.zones import ZoneTable
from eal.pci.bar_access import BarAccess
from eal.pci.bus import Bus
from eal.probe.events import Event
from eal.probe.monitor import HotplugMonitor
from eal.probe.observer import ProbeObserver
from eal.probe.prober import Prober
from eal.probe.share import Share
from eal.runtime.prefix_dir import PrefixDir, check_prefix, runtime_dir
from eal.text.sizes import MIB


class LazyMonitor:
    """The hotplug monitor, which is started only in a process that has shares or a watch."""

    def __init__(self) -> None:
        self._monitor: HotplugMonitor | None = None

    def start(self, prober: Prober, bus: Bus) -> HotplugMonitor:
        """Return the monitor; start it if it does not run yet. Not thread-safe."""
        if self._monitor is None:
            self._monitor = HotplugMonitor(prober, bus)
        return self._monitor

    def report(self, event: Event) -> None:
        """Pass an event to all watches."""
        if self._monitor is not None:
            self._monitor.report(event)

    def close(self) -> None:
        """Join the thread of the monitor and close all watches."""
        if self._monitor is not None:
            self._monitor.close()

    def abandon(self) -> None:
        """Close the descriptors in a forked child, which has no monitor thread."""
        if self._monitor is not None:
            self._monitor.abandon()


@dataclass(frozen=True)
class Parts:
    """The parts of an Eal. `resources` closes the parts that hold mappings, in reverse order of their creation."""

    options: Options
    membership: Membership
    bus: Bus
    bar_access: BarAccess
    prober: Prober
    monitor: LazyMonitor
    objects: ObjectTable
    resources: ExitStack


class _EalObserver(ProbeObserver):
    """Passes the prober's results to the registry check, the lookups and the watches of an Eal."""

    def __init__(self, membership: Membership, zones: ZoneTable, monitor: LazyMonitor) -> None:
        self._membership, self._zones, self._monitor = membership, zones, monitor

    def find_in_use(self, entries: Iterable[Entry]) -> tuple[Entry, str] | None:
        return self._membership.find_in_registry(entries)

    def publish(self, shares: list[Share]) -> None:
        self._zones.publish(shares)

    def revoke(self, share: Share, code: int) -> None:
        self._zones.revoke(share, code)

    def report(self, event: Event) -> None:
        self._monitor.report(event)


def create_parts(options: Options) -> Parts:
    """Join the file_prefix, probe the PCI devices and allocate the requested memory.

    Raise InUse, Invalid, NotFound, NoMemory, Denied or Corrupt. On failure, remove the files of a new file_prefix.
    """
    directory = PrefixDir(runtime_dir().absolute(), check_prefix(options.file_prefix))
    membership = join(directory, options.proc_type, recover=options.recover)
    monitor, resources = LazyMonitor(), ExitStack()
    resources.callback(membership.registry.close)
    try:
        parts = _connect_parts(options, membership, monitor, resources)
        _start(parts)
    except BaseException:
        monitor.close()
        membership.leave(resources, remove=membership.owns_files and not options.recover)
        raise
    return parts


def _connect_parts(options: Options, membership: Membership, monitor: LazyMonitor, resources: ExitStack) -> Parts:
    directory = membership.directory
    bar_access = BarAccess(
        directory.bar_access, options.bar_access, primary=membership.is_primary, lock=membership.lock
    )
    bus = Bus(options.sysfs_root)
    zones = ZoneTable()
    prober = Prober(_EalObserver(membership, zones, monitor), bar_access.map)
    resources.callback(prober.close)
    if not options.no_pci:
        with _garbage_collector_off():
            prober.probe(bus.devices())
    is_guest = bool(zones.shares) or bool(options.sysfs_root or os.environ.get("EAL_SYSFS_ROOT"))
    base = options.base_virtaddr or base_address(directory.prefix, guest=is_guest)
    pages_chosen = options.huge_dir is not None or options.no_huge is not None

    def choose_backend() -> hugepages.Backend:
        return hugepages.choose(huge_dir=options.huge_dir, no_huge=options.no_huge)

    heap = Heap(directory, membership.registry, choose_backend, base, membership.lock, pages_chosen)
    objects = ObjectTable(heap, zones, float(options.stall_timeout), membership.check_open)
    resources.callback(objects.close)
    if (pages_chosen and not options.no_huge) or (membership.is_primary and not is_guest):
        _ = heap.backend  # report unusable or missing hugepages now, not at the first reservation
    return Parts(options, membership, bus, bar_access, prober, monitor, objects, resources)


def _start(parts: Parts) -> None:
    if parts.options.lcores is not None:
        _run_on(parts.options.lcores)
    if parts.membership.is_primary:
        if not parts.membership.registry.table.segments:
            _allocate_memory(parts.options, parts.objects.heap)
        parts.objects.repair_rings()
    if parts.objects.zones.shares:
        parts.monitor.start(parts.prober, parts.bus)


def _run_on(lcores: list[int]) -> None:
    """Restrict this process to these CPUs. DPDK pins one thread per lcore; here the application creates the threads."""
    try:
        os.sched_setaffinity(0, lcores)
    except OSError as error:
        raise Invalid(f"lcores must be CPUs that this process may use, got {lcores}: {error.strerror}") from error


def _allocate_memory(options: Options, heap: Heap) -> None:
    """Create the segments of -m and --socket-mem in the default group."""
    requests = [(SOCKET_ID_ANY, options.memory or 0), *enumerate(options.socket_mem)]
    for socket_id, mib in (request for request in requests if request[1] > 0):
        left = -(-mib * MIB // heap.backend.page_size) * heap.backend.page_size
        while left > 0:
            size = 1 << (left.bit_length() - 1)
            heap.create_segment(size, group="default", socket_id=socket_id, ownership=Ownership())
            left -= size


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    """Disable the garbage collector, which would scan thousands of new entries, for a third of the time of `init`."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
