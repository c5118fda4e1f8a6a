# SPDX-License-Identifier: BSD-3-Clause
"""Start-up: this process's only Eal, from `eal.init` to `close`, a fork or the end of the interpreter."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable, Sequence

from eal.errors import Closed, EalError, InUse
from eal.lifecycle import options
from eal.lifecycle.eal import Eal
from eal.lifecycle.parts import create_parts

log = logging.getLogger(__name__)

_current: Eal | None = None  # the last Eal of this process, open or closed
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
    """Join a file_prefix as primary or secondary, and find the shares on PCI devices (DPDK: rte_eal_init).

    `argv` are DPDK's EAL options without a program name, up to `--`. A keyword that is not None takes precedence.

    - file_prefix: "rte" by default.
    - proc_type: "auto" (secondary if a primary is alive, else primary; the default), "primary" or "secondary".
    - memory: MiB to allocate at start-up.
    - huge_dir: hugetlbfs mount to use. no_huge: True selects tmpfs, False requires hugepages; by default hugepages are
      used if there are free ones.
    - lcores: CPUs to run on.
    - base_virtaddr: address of the first segment.
    - sysfs_root: directory to use instead of /sys.
    - bar_access: how a primary's file_prefix maps the BARs of segments: "sysfs", "devmem" (write-back through /dev/mem,
      for processors that obey the guest's memory type), or "auto", which measures (the default).
    - recover: adopt the objects of a dead primary.
    - stall_timeout: seconds after which an operation raises Stalled if a peer has not finished its own; 1.0 by default.

    Raise InUse if this process has an open Eal or another primary is alive; Invalid, NotFound, NoMemory, Denied or
    Corrupt.
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
            raise InUse(f"this process already has an open Eal ({_current!r}); close it first")
        _current = Eal(create_parts(options.parse(argv, keywords)))
        return _current


def current() -> Eal:
    """Return this process's open Eal. Raise Closed if there is none."""
    if _current is None or _current.closed:
        raise Closed("this process has no open Eal; call eal.init() first")
    return _current


def _abandon_after_fork() -> None:
    """Leave the parent's Eal to the parent: the child has none, its inherited handles raise Closed, views stay valid.

    Runs in the child after the handler of eal.linux.process, which is imported first and so registered first: the
    finalizers of the handles that are dropped here compare the fork count that it has raised. No lock is acquired and
    the init lock is replaced, because a thread that does not exist in the child may hold it.
    """
    global _init_lock
    _init_lock = threading.Lock()
    if _current is not None and not _current.closed:
        _current.abandon()


def _close_at_exit() -> None:
    if _current is not None:
        try:
            _current.close()
        except EalError as error:
            log.error("cannot close %r: %s", _current, error)


os.register_at_fork(after_in_child=_abandon_after_fork)
atexit.register(_close_at_exit)
