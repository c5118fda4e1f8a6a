# SPDX-License-Identifier: BSD-3-Clause
"""Errors: every exception that this project raises, and the single place that maps a negative errno to one of them."""

from __future__ import annotations

import errno
import os
from typing import NoReturn


class EalError(Exception):
    """Base class of all errors of this project. Each subclass also derives from the builtin that fits it best.

    `code` is the errno that caused it, 0 if there is none.
    """

    code = 0

    def __str__(self) -> str:
        # KeyError and OSError would decorate the message; the messages here are complete sentences.
        return str(self.args[0]) if self.args else ""


class NotFound(EalError, LookupError):
    """No object has that name (DPDK: ENOENT)."""


class Exists(EalError, FileExistsError):
    """The name is already in use (DPDK: EEXIST)."""


class Invalid(EalError, ValueError):
    """An argument is outside the range that the call accepts (DPDK: EINVAL)."""


class InvalidType(Invalid, TypeError):
    """An argument has a type that the call does not accept, such as None instead of a name."""


class NoMemory(EalError, MemoryError):
    """Too few pages, or too little space in the segment (DPDK: ENOMEM)."""


class Denied(EalError, PermissionError):
    """The share is read-only, or this user may not open the file or device (DPDK: EACCES)."""


class InUse(EalError, OSError):
    """A live process uses the object or file that the call would create, free or remove (DPDK: EBUSY)."""


class Corrupt(EalError, ValueError):
    """Shared memory failed validation; none of its content was used."""


class Stalled(EalError, TimeoutError):
    """A peer began an operation and did not finish it within `stall_timeout`."""


class Closed(EalError):
    """The Eal or the object was closed, or belongs to the parent of this forked process."""


class Detached(EalError):
    """The device that carried the object was unplugged."""


class Stale(EalError):
    """The host made a fresh start: the object belongs to an earlier epoch."""


_BY_ERRNO: dict[int, type[EalError]] = {
    errno.ENOENT: NotFound,
    errno.EEXIST: Exists,
    errno.EINVAL: Invalid,
    errno.ERANGE: Invalid,
    errno.ENOTSUP: Invalid,
    errno.ENOMEM: NoMemory,
    errno.ENOSPC: NoMemory,
    errno.EFAULT: NoMemory,
    errno.EACCES: Denied,
    errno.EPERM: Denied,
    errno.EROFS: Denied,
    errno.EBUSY: InUse,
    errno.EBADMSG: Corrupt,
    errno.ETIMEDOUT: Stalled,
    errno.ESHUTDOWN: Closed,
    errno.ENODEV: Detached,
    errno.ESTALE: Stale,
}

# With one of these an object never becomes usable again: its Eal was closed, its device unplugged, its host restarted.
TERMINAL_ERRNOS = (errno.ESHUTDOWN, errno.ENODEV, errno.ESTALE)

_TEXTS = {
    errno.ETIMEDOUT: "a peer began an operation and did not finish it within stall_timeout: it died or hangs",
    errno.EACCES: "the share is read-only in this machine",
    errno.ESHUTDOWN: "closed: it was freed, its Eal was closed, or it belongs to the parent process",
    errno.EBUSY: "a zero-copy operation on this side has not finished",
    errno.ENODEV: "the device that carried it was unplugged",
    errno.ESTALE: "the host that created it made a fresh start: look up its successor",
}


def from_errno(code: int, message: str) -> EalError:
    """Return the exception for a negative (or positive) errno with this message; never raise it."""
    number = abs(code)
    kind = _BY_ERRNO.get(number)
    error = EalError(f"{message}: {os.strerror(number)}") if kind is None else kind(message)
    error.code = number
    return error


def raise_for(code: int, kind: str, name: str, details: dict[int, str] | None = None) -> NoReturn:
    """Raise the exception for a negative errno of an operation on the object `name` of this kind ("ring", ...).

    `details` maps an errno to a text that replaces the general one.
    """
    text = (details or {}).get(-code) or _TEXTS.get(-code)
    raise from_errno(code, f"{kind} {name!r}: {text}" if text else f"{kind} {name!r}")
