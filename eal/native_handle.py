# SPDX-License-Identifier: BSD-3-Clause
"""C handles and fault codes: how long a cffi handle lives, and the text of a fault that the C core reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eal._native import ffi, lib
from eal.linux import process


def own(pointer: Any, *keep: object, finish: Callable[[], object] | None = None) -> Any:
    """Return a C handle that keeps `keep` (its memory, a view of the pages it uses) alive as long as it lives itself.

    A cffi call holds a reference to its arguments, so an object can be closed while another thread is inside C: the
    object drops the handle, and when that thread returns from C, `finish` runs (never in a forked child) and the pages
    are released.
    """
    forks = process.fork_count()

    def destroy(_: Any, keep: tuple[object, ...] = keep) -> None:
        if finish is not None and forks == process.fork_count():
            finish()

    return ffi.gc(pointer, destroy)


def fault_text(fault: int) -> str:
    """Return the text of an `enum ivs_fault` (fault.h): a noun phrase that completes "ring 'r': ..."."""
    text: bytes = ffi.string(lib.ivs_fault_text(fault))
    return text.decode()
