"""What handles of rings and pools have in common: how long they live, and what their errnos mean."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NoReturn

from eal import errors
from eal._native import ffi
from eal.linux import process


def own(pointer: Any, *keep: object, finish: Callable[[], object] | None = None) -> Any:
    """A C handle that keeps `keep` (its memory, a view of the pages it works on) alive as long as it lives itself.

    A call holds its arguments, so an object can be closed while another thread is inside C: the object lets go of
    the handle, and when that thread comes out `finish` is called (not in a forked child) and the pages go.
    """
    forks = process.forks()

    def destroy(_: Any, keep: tuple[object, ...] = keep) -> None:
        if finish is not None and forks == process.forks():
            finish()

    return ffi.gc(pointer, destroy)


# Why an object cannot be used any more: its Eal was closed, its device unplugged, or its host started afresh.
OVER = (errno.ESHUTDOWN, errno.ENODEV, errno.ESTALE)


def raise_for(code: int, kind: str, name: str, details: dict[int, str] | None = None) -> NoReturn:
    """Raises the exception for a negative errno of an operation on an object."""
    text = (details or {}).get(-code) or _TEXTS.get(-code)
    raise errors.from_errno(code, f"{kind} {name!r}: {text}" if text else f"{kind} {name!r}")


_TEXTS = {
    errno.ETIMEDOUT: "a peer began an operation and did not finish it within stall_timeout: it died or hangs",
    errno.EACCES: "the share is read-only in this machine",
    errno.ESHUTDOWN: "closed: it was freed, its Eal was closed, or it belongs to the parent process",
    errno.EBUSY: "a zero-copy operation at this end is not finished yet",
    errno.ENODEV: "the device that carried it was unplugged",
    errno.ESTALE: "the host that made it started afresh: look its successor up",
}
