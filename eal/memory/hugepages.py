# SPDX-License-Identifier: BSD-3-Clause
"""Page backends: hugetlbfs mounts, and tmpfs where there are none; files whose pages are taken at once."""

from __future__ import annotations

import errno
import grp
import logging
import os
import pwd
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from eal.errors import Denied, EalError, Invalid, NoMemory, NotFound, from_errno
from eal.linux.mapping import Mapping
from eal.text.sizes import KIB, MIB, parse_size
from eal.topology.model import Topology
from eal.topology.sysfs import hugepage_pool

if TYPE_CHECKING:
    from eal.metadata.table_file import SegmentRecord

log = logging.getLogger(__name__)

SHM_DIR = Path("/dev/shm")
HUGEPAGES = Path("/sys/kernel/mm/hugepages")
CHUNK = 64 * MIB  # taken at once; between two of these progress is told, and a signal is heard
HOW_TO_GET_HUGEPAGES = (
    "echo 512 > /proc/sys/vm/nr_hugepages && mkdir -p /dev/hugepages && "
    "mount -t hugetlbfs -o pagesize=2M none /dev/hugepages"
)


@dataclass(frozen=True)
class Backend:
    """Where the files of segments lie, and the size of a page there in bytes. `reserved`: bytes that a hugetlbfs was
    promised when it was mounted (min_size), which the kernel counts as reserved even while they are free.
    """

    folder: Path
    page_size: int
    huge: bool
    reserved: int = 0

    def free_pages(self, node: int | None = None) -> int:
        """Pages that can be had now: free hugepages that nobody reserved, or what the tmpfs has left. With `node`, no
        more hugepages than are free there.
        """
        found = os.statvfs(self.folder)
        if not self.huge:  # a tmpfs may be as large as the memory that others have, too
            return min(found.f_bavail * found.f_frsize, _available_memory()) // self.page_size
        pool = HUGEPAGES / f"hugepages-{self.page_size // KIB}kB"
        free = int((pool / "free_hugepages").read_text()) - int((pool / "resv_hugepages").read_text())
        free += max(self.reserved // self.page_size - (found.f_blocks - found.f_bfree), 0)
        if node is not None:
            free = min(free, free_hugepages(node, self.page_size))
        return min(free, found.f_bavail) if found.f_blocks else free  # no blocks: mounted without a limit

    def how_to_get_more(self, node: int | None = None) -> str:
        if not self.huge:
            return "free some space there, or make it larger"
        return (
            HOW_TO_GET_HUGEPAGES if node is None else f"echo 512 > /{hugepage_pool(node, self.page_size)}/nr_hugepages"
        )


def hugetlbfs_mounts(mounts: Path = Path("/proc/mounts")) -> list[Backend]:
    """The mounted hugetlbfs, those of smaller pages first."""
    found = []
    for line in mounts.read_text(errors="surrogateescape").splitlines():
        _, folder, kind, options, *_ = line.split(" ")
        if kind != "hugetlbfs":
            continue
        given = {key: value for key, _, value in (option.partition("=") for option in options.split(","))}
        size = parse_size(given["pagesize"]) if "pagesize" in given else _default_hugepage()
        found.append(Backend(Path(_unescape(folder)), size, True, parse_size(given.get("min_size", "0"))))
    return sorted(found, key=lambda backend: backend.page_size)


def _unescape(field: str) -> str:
    """/proc/mounts writes blanks, tabs, newlines and backslashes as three octal digits."""
    for code in ("040", "011", "012", "134"):
        field = field.replace(f"\\{code}", chr(int(code, 8)))
    return field


def _default_hugepage() -> int:
    return _meminfo().get("Hugepagesize", 2 * MIB)


def _available_memory() -> int:
    """Bytes that can be taken before the kernel has to end somebody."""
    found = _meminfo()
    return found["MemAvailable"] + found["SwapFree"]


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes, without what it counts in pages."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * KIB for words in lines if words[-1] == "kB"}


def tmpfs() -> Backend:
    return Backend(SHM_DIR, os.sysconf("SC_PAGE_SIZE"), huge=False)


def choose(
    *, huge_dir: str | os.PathLike[str] | None = None, no_huge: bool | None = None, page_size: int | None = None
) -> Backend:
    """The backend for a process or a group (DPDK's --huge-dir and --no-huge).

    `page_size` in bytes insists on pages of that size. `no_huge`: True takes tmpfs; False insists on hugepages and
    raises NotFound without; None takes hugepages where they can be had, otherwise tmpfs with a warning that names the
    commands to get some.
    """
    if no_huge:
        if huge_dir is not None:
            raise Invalid("huge_dir and no_huge contradict each other: leave one out")
        return tmpfs()
    if huge_dir is not None:
        backend = _named(Path(huge_dir))
        if page_size not in (None, backend.page_size):
            raise Invalid(f"huge_dir {huge_dir} has pages of {backend.page_size} bytes, not {page_size}: leave one out")
        return backend
    if page_size == tmpfs().page_size:
        return tmpfs()
    usable = [b for b in hugetlbfs_mounts() if os.access(b.folder, os.W_OK) and b.free_pages() > 0]
    for backend in usable:
        if page_size in (None, backend.page_size):
            return backend
    if page_size is not None:
        raise NotFound(
            f"no hugetlbfs with free pages of {page_size} bytes that this user may write to. To get one of 2 MiB: "
            f"{HOW_TO_GET_HUGEPAGES}"
        )
    if no_huge is False:
        raise NotFound(f"no hugetlbfs with free pages that this user may write to. To get one: {HOW_TO_GET_HUGEPAGES}")
    log.warning(
        "no free hugepages: falling back to tmpfs (%s), which costs TLB misses. To get some: %s",
        SHM_DIR,
        HOW_TO_GET_HUGEPAGES,
    )
    return tmpfs()


def backend_of(record: SegmentRecord) -> Backend:
    """The backend that a segment was made of, so that more of the same can be."""
    folder = Path(record.path).parent
    if record.page_size == tmpfs().page_size:
        return replace(tmpfs(), folder=folder)
    mounted = [b for b in hugetlbfs_mounts() if b.page_size == record.page_size and folder.is_relative_to(b.folder)]
    mount = max(mounted, key=lambda b: len(b.folder.parts), default=Backend(folder, record.page_size, huge=True))
    return replace(mount, folder=folder)


def _named(folder: Path) -> Backend:
    real = folder.resolve()
    backend = next((b for b in hugetlbfs_mounts() if real.is_relative_to(b.folder.resolve())), None)
    if backend is None:
        raise Invalid(f"huge_dir {folder} is not on a hugetlbfs. To mount one: {HOW_TO_GET_HUGEPAGES}")
    if not real.is_dir() or not os.access(real, os.W_OK | os.X_OK):
        raise Denied(f"this user may not create files in huge_dir {folder}")
    return replace(backend, folder=real)


def check_mode(mode: object, what: str) -> None:
    """Raises Invalid for what is no mode of a shared file."""
    if not isinstance(mode, int) or mode & ~0o777 or mode & 0o600 != 0o600:
        shown = oct(mode) if isinstance(mode, int) else repr(mode)
        raise Invalid(f"{what}: mode {shown}: permission bits that let the owner read and write, such as 0o660")


def check_owner(kind: str, owner: str | int | None) -> None:
    """Raises NotFound for a user (`kind` "user") or group that this system does not know by its name."""
    look = pwd.getpwnam if kind == "user" else grp.getgrnam
    try:
        if isinstance(owner, str):
            look(owner)
    except KeyError as error:
        raise NotFound(f"this system has no {kind} {owner!r}") from error


@dataclass(frozen=True)
class Ownership:
    """Who may open a file: its mode, and a user and a group by name or number (None: this process's own)."""

    mode: int = 0o600
    user: str | int | None = None
    group: str | int | None = None

    def holds(self, path: Path) -> bool:
        """Whether a file is so already."""
        found = path.stat()
        user = pwd.getpwnam(self.user).pw_uid if isinstance(self.user, str) else self.user
        group = grp.getgrnam(self.group).gr_gid if isinstance(self.group, str) else self.group
        owned = user in (None, found.st_uid) and group in (None, found.st_gid)
        return owned and found.st_mode & 0o777 == self.mode

    def give(self, path: Path) -> None:
        """Makes a file so. Raises Denied, or NotFound for an unknown user or group."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self.apply(fd, path)
        finally:
            os.close(fd)

    def apply(self, fd: int, path: Path) -> None:
        try:
            if self.user is not None or self.group is not None:
                # shutil's way takes names as well as numbers
                shutil.chown(f"/proc/self/fd/{fd}", self.user, self.group)  # type: ignore[arg-type]
            os.fchmod(fd, self.mode)
        except LookupError as error:
            raise NotFound(f"{path}: {error}") from error
        except OSError as error:
            raise Denied(
                f"cannot give {path} to user {self.user}, group {self.group}, mode {self.mode:o}: {error.strerror}"
            ) from error


Progress = Callable[[int], object]  # is told of so many bytes more whose pages were taken


def create(
    backend: Backend,
    path: Path,
    size: int,
    *,
    hint: int = 0,
    ownership: Ownership | None = None,
    bind: int | None = None,
    progress: Progress | None = None,
) -> Mapping:
    """Makes a file of `size` bytes, maps it and takes every page of it now, bound to NUMA node `bind` if given.

    Too few pages, or pages on another node than that: raises NoMemory. A node that is not there: Invalid. Whatever
    fails, no file is left behind.
    """
    if bind is not None:
        check_node(bind)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Denied(f"cannot create {path}: {error.strerror}") from error
    try:
        os.ftruncate(fd, size)
        mapping = Mapping(fd, size, hint=hint, what=str(path))
        if bind is not None:
            _bind(mapping, bind, path)
        _take_pages(backend, fd, mapping, progress)
        if bind is not None:
            _check_place(backend, mapping, bind)
        (ownership or Ownership()).apply(fd, path)
        return mapping
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, NoMemory) or (isinstance(error, OSError) and not isinstance(error, EalError)):
            raise NoMemory(_shortage(backend, size, bind, error)) from error
        raise
    finally:
        os.close(fd)


def _take_pages(backend: Backend, fd: int, mapping: Mapping, progress: Progress | None) -> None:
    """Takes all pages now: a page that cannot be had later would be a SIGBUS. tmpfs by fallocate, which fails
    cleanly; hugetlbfs has reserved them in mmap.
    """
    from eal._native import lib

    if not backend.huge and backend.free_pages() * backend.page_size < mapping.length:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # before others are starved of all that is left
    step = max(CHUNK, backend.page_size)
    for at in range(0, mapping.length, step):
        size = min(step, mapping.length - at)
        if not backend.huge:
            os.posix_fallocate(fd, at, size)
        result = lib.ivs_populate(mapping.address + at, size, backend.page_size)
        if result < 0:
            raise from_errno(result, f"cannot take the pages: {os.strerror(-result)}")
        if progress is not None:
            progress(size)


def check_room(backend: Backend, size: int) -> None:
    """Raises NoMemory where pages for `size` bytes are not to be had: before the first of several files takes any."""
    if backend.free_pages() * backend.page_size < size:
        raise NoMemory(_shortage(backend, size, None, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))


def _shortage(backend: Backend, size: int, node: int | None, error: BaseException) -> str:
    need = size // backend.page_size
    kind = f"{backend.page_size // KIB} KiB {'hugepages' if backend.huge else 'pages'}"
    where = f"{backend.folder}" if node is None else f"{backend.folder} on NUMA node {node}"
    try:
        free = str(backend.free_pages(node))
    except OSError:
        free = "an unknown number"
    return f"{need} {kind} are needed in {where}, {free} can be had ({error}): {backend.how_to_get_more(node)}"


# --- NUMA -------------------------------------------------------------------------------------------------------


def free_hugepages(node: int, page_size: int) -> int:
    """Hugepages of a size that are free on a NUMA node."""
    pools = (pool for there in Topology().nodes if there.node == node for pool in there.hugepages)
    return next((pool.free for pool in pools if pool.size == page_size), 0)


def nodes_with_memory() -> frozenset[int]:
    """The NUMA nodes that memory can be bound to."""
    return frozenset(node.node for node in Topology().nodes if node.memory)


def check_node(node: int) -> None:
    """Raises Invalid for a NUMA node without memory, or one that is not there."""
    there = nodes_with_memory()
    if node not in there:
        names = ", ".join(map(str, sorted(there))) or "none that this kernel knows of"
        raise Invalid(f"there is no memory on NUMA node {node} of this machine; nodes with memory: {names}")


def _bind(mapping: Mapping, node: int, path: Path) -> None:
    from eal._native import lib

    result = lib.ivs_bind(mapping.address, mapping.length, node)
    if result < 0:
        reason = os.strerror(-result)
        raise from_errno(result, f"cannot bind {path} to NUMA node {node}: {reason} (is the node in its cpuset?)")


def _check_place(backend: Backend, mapping: Mapping, node: int) -> None:
    """What the kernel made of the binding: raises NoMemory where any page lies on another node."""
    from eal._native import lib

    elsewhere = lib.ivs_count_elsewhere(mapping.address, mapping.length, backend.page_size, node)
    if elsewhere < 0:
        raise from_errno(elsewhere, f"cannot tell where the pages lie: {os.strerror(-elsewhere)}")
    if elsewhere:
        raise NoMemory(f"{elsewhere} of them came to lie on other nodes")
