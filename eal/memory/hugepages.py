# SPDX-License-Identifier: BSD-3-Clause
"""Page backends of segments: hugetlbfs mounts, or tmpfs as the fallback (DPDK: hugepage_info)."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from eal.errors import Denied, Invalid, NotFound
from eal.memory.numa import free_hugepages
from eal.metadata.records import SegmentRecord
from eal.text.sizes import KIB, MIB, parse_size
from eal.topology.sysfs import hugepage_pool

log = logging.getLogger(__name__)

SHM_DIR = Path("/dev/shm")
HUGEPAGES = Path("/sys/kernel/mm/hugepages")
HOW_TO_GET_HUGEPAGES = (
    "echo 512 > /proc/sys/vm/nr_hugepages && mkdir -p /dev/hugepages && "
    "mount -t hugetlbfs -o pagesize=2M none /dev/hugepages"
)


@dataclass(frozen=True)
class Backend:
    """The folder of segment files and its page size in bytes.

    `reserved` is the min_size in bytes of a hugetlbfs mount. The kernel counts its pages as reserved even while they
    are free.
    """

    folder: Path
    page_size: int
    huge: bool
    reserved: int = 0

    def free_pages(self, node: int | None = None) -> int:
        """Return the number of pages that can be allocated now: free unreserved hugepages, or free tmpfs space.

        With `node`, hugepages of other NUMA nodes are not counted.
        """
        found = os.statvfs(self.folder)
        if not self.huge:  # the limit of a tmpfs may exceed the free memory
            return min(found.f_bavail * found.f_frsize, _available_memory()) // self.page_size
        pool = HUGEPAGES / f"hugepages-{self.page_size // KIB}kB"
        free = int((pool / "free_hugepages").read_text()) - int((pool / "resv_hugepages").read_text())
        free += max(self.reserved // self.page_size - (found.f_blocks - found.f_bfree), 0)
        if node is not None:
            free = min(free, free_hugepages(node, self.page_size))
        return min(free, found.f_bavail) if found.f_blocks else free  # no blocks: mounted without a size limit

    def how_to_get_more(self, node: int | None = None) -> str:
        """Return a command or instruction that makes more pages available."""
        if not self.huge:
            return f"free memory, or enlarge the file system: mount -o remount,size=SIZE {self.folder}"
        if node is None:
            return HOW_TO_GET_HUGEPAGES
        return f"echo 512 > /{hugepage_pool(node, self.page_size)}/nr_hugepages"


def hugetlbfs_mounts(mounts: Path = Path("/proc/mounts")) -> list[Backend]:
    """Return the mounted hugetlbfs file systems, smallest pages first."""
    found = []
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        _, folder, kind, options, *_ = line.split(" ")
        if kind != "hugetlbfs":
            continue
        values = {key: value for key, _, value in (option.partition("=") for option in options.split(","))}
        size = parse_size(values["pagesize"]) if "pagesize" in values else _default_hugepage()
        found.append(Backend(Path(_unescape(folder)), size, True, parse_size(values.get("min_size", "0"))))
    return sorted(found, key=lambda backend: backend.page_size)


def _unescape(field: str) -> str:
    """Decode a field of /proc/mounts, which has spaces, tabs, newlines and backslashes in octal."""
    for code in ("040", "011", "012", "134"):
        field = field.replace(f"\\{code}", chr(int(code, 8)))
    return field


def _default_hugepage() -> int:
    return _meminfo().get("Hugepagesize", 2 * MIB)


def _available_memory() -> int:
    """Return the bytes that can be allocated before the OOM killer runs."""
    found = _meminfo()
    return found["MemAvailable"] + found["SwapFree"]


def _meminfo() -> dict[str, int]:
    """Return /proc/meminfo in bytes, without the fields that count pages."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * KIB for words in lines if words[-1] == "kB"}


def tmpfs() -> Backend:
    """Return the backend of /dev/shm."""
    return Backend(SHM_DIR, os.sysconf("SC_PAGE_SIZE"), huge=False)


def choose(
    *, huge_dir: str | os.PathLike[str] | None = None, no_huge: bool | None = None, page_size: int | None = None
) -> Backend:
    """Return the backend for a process or a segment group (DPDK: --huge-dir and --no-huge).

    `page_size` in bytes selects pages of exactly that size. `no_huge`: True selects tmpfs; False requires hugepages;
    None selects hugepages if available, otherwise tmpfs with a warning that contains the commands to get hugepages.
    Raise NotFound if the required pages are not available, Invalid or Denied for an unsuitable `huge_dir`.
    """
    if no_huge:
        if huge_dir is not None:
            raise Invalid("huge_dir and no_huge exclude each other: omit one")
        return tmpfs()
    if huge_dir is not None:
        backend = _mount_of(Path(huge_dir))
        if page_size not in (None, backend.page_size):
            raise Invalid(f"page_size must be {backend.page_size} in huge_dir {huge_dir}, got {page_size}: omit one")
        return backend
    if page_size == tmpfs().page_size:
        return tmpfs()
    usable = [b for b in hugetlbfs_mounts() if os.access(b.folder, os.W_OK) and b.free_pages() > 0]
    for backend in usable:
        if page_size in (None, backend.page_size):
            return backend
    if page_size is not None:
        raise NotFound(
            f"no writable hugetlbfs has free pages of {page_size} bytes. To get pages of 2 MiB: {HOW_TO_GET_HUGEPAGES}"
        )
    if no_huge is False:
        raise NotFound(f"no writable hugetlbfs has free pages. To get some: {HOW_TO_GET_HUGEPAGES}")
    log.warning(
        "no free hugepages: falling back to tmpfs (%s), which costs TLB misses. To get some: %s",
        SHM_DIR,
        HOW_TO_GET_HUGEPAGES,
    )
    return tmpfs()


def backend_of(record: SegmentRecord) -> Backend:
    """Return the backend of an existing segment, to allocate more of the same pages."""
    folder = Path(record.path).parent
    if record.page_size == tmpfs().page_size:
        return replace(tmpfs(), folder=folder)
    mounted = [b for b in hugetlbfs_mounts() if b.page_size == record.page_size and folder.is_relative_to(b.folder)]
    mount = max(mounted, key=lambda b: len(b.folder.parts), default=Backend(folder, record.page_size, huge=True))
    return replace(mount, folder=folder)


def _mount_of(folder: Path) -> Backend:
    real = folder.resolve()
    backend = next((b for b in hugetlbfs_mounts() if real.is_relative_to(b.folder.resolve())), None)
    if backend is None:
        raise Invalid(f"huge_dir {folder} is not on a hugetlbfs. To mount one: {HOW_TO_GET_HUGEPAGES}")
    if not real.is_dir() or not os.access(real, os.W_OK | os.X_OK):
        raise Denied(f"huge_dir {folder} is not writable for this user: change its mode or owner")
    return replace(backend, folder=real)
