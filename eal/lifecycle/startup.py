# SPDX-License-Identifier: BSD-3-Clause
"""Startup: the one Eal of this process, from `eal.init` to its end, a fork or the interpreter's exit."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable, Sequence

from eal.errors import Closed, EalError, InUse
from eal.lifecycle import options
from eal.lifecycle.eal import Eal

log = logging.getLogger(__name__)

_current: Eal | None = None  # the last one that was made; it may be closed by now
_init_lock = threading.Lock()


def init(
    argv: Sequence[str] | None = None,
    *,
    file_prefix: str | None = None,
    proc_type: str | None = None,
    memory: int | None = None,
    huge_dir: str | os.PathLike[str] | None = None,
    no_huge: bool | None = None,
    lcores: Iterable[int] | None = None,
    base_virtaddr: int | None = None,
    sysfs_root: str | os.PathLike[str] | None = None,
    bar_access: str | None = None,
    recover: bool = False,
    stall_timeout: float | None = None,
) -> Eal:
    """Makes this process primary or secondary of a file_prefix and finds what PCI devices carry (rte_eal_init).

    `argv` are DPDK's EAL options without a program name, up to `--`. Keywords win over them; None means what argv
    says, or the default.

    - file_prefix: "rte" by default. proc_type: "auto" (secondary if a primary lives), "primary" or "secondary".
    - memory: MiB to take at the start. huge_dir, no_huge: see `eal.memory.hugepages.choose`.
    - base_virtaddr: where segments start.
    - bar_access: how BARs of segments are mapped, as the primary says: "sysfs", "devmem" (write-back through /dev/mem,
      for processors that obey the guest's caching type), or "auto", which measures.
    - lcores: CPUs to run on. sysfs_root: a tree instead of /sys. recover: take up what a dead primary left.
    - stall_timeout: seconds, 1.0 by default, after which a peer that does not finish is given up.

    Raises InUse while this process has an Eal, or another primary lives; Invalid, NotFound, NoMemory, Denied.
    """
    global _current
    keywords = {
        "file_prefix": file_prefix,
        "proc_type": proc_type,
        "memory": memory,
        "huge_dir": huge_dir,
        "no_huge": no_huge,
        "lcores": None if lcores is None else list(lcores),
        "base_virtaddr": base_virtaddr,
        "sysfs_root": sysfs_root,
        "bar_access": bar_access,
        "recover": recover,
        "stall_timeout": stall_timeout,
    }
    with _init_lock:
        if _current is not None and not _current.closed:
            raise InUse(f"this process has an Eal already ({_current!r}): close it first")
        _current = Eal(options.parse(argv, keywords))
        return _current


def current() -> Eal:
    """The process's Eal. Raises Closed where there is none."""
    if _current is None or _current.closed:
        raise Closed("this process has no Eal: call eal.init() first")
    return _current


def _after_fork() -> None:
    global _init_lock
    _init_lock = threading.Lock()
    if _current is not None and not _current.closed:
        _current.abandon()


def _at_exit() -> None:
    if _current is not None:
        try:
            _current.close()
        except EalError as error:
            log.error("cannot close %r: %s", _current, error)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
