"""Errors: every exception this project raises, and the one door from a negative errno to them."""

from __future__ import annotations

import errno
import os


class EalError(Exception):
    """Base of all errors raised here. Each also derives from the builtin that fits it best.

    `code` is the errno behind it, 0 where there is none.
    """

    code = 0

    def __str__(self) -> str:
        # KeyError and OSError would otherwise decorate the message; ours are whole sentences.
        return str(self.args[0]) if self.args else ""


class NotFound(EalError, LookupError):
    """There is no object of that name (DPDK: ENOENT)."""


class Exists(EalError, FileExistsError):
    """The name is taken (DPDK: EEXIST)."""


class Invalid(EalError, ValueError):
    """An argument is outside what the call accepts (DPDK: EINVAL)."""


class InvalidType(Invalid, TypeError):
    """An argument is of a type that the call does not take, such as None where a name belongs."""


class NoMemory(EalError, MemoryError):
    """Too few pages, or no room left where the object has to lie (DPDK: ENOMEM)."""


class Denied(EalError, PermissionError):
    """The share is read-only, or the file or device may not be opened (DPDK: EACCES)."""


class InUse(EalError, OSError):
    """Somebody alive holds what was to be created, freed or removed (DPDK: EBUSY)."""


class Corrupt(EalError, ValueError):
    """Shared memory does not hold what it should; nothing of it was used."""


class Stalled(EalError, TimeoutError):
    """A peer began an operation and did not finish it within `stall_timeout`."""


class Closed(EalError):
    """The Eal or object was closed, or belongs to the parent of this forked process."""


class Detached(EalError):
    """The device that carried the object was unplugged."""


class Stale(EalError):
    """The host started afresh: the object belongs to an epoch that is over."""


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


def from_errno(code: int, message: str) -> EalError:
    """The exception for a negative (or positive) errno, saying `message`; never raises itself."""
    number = abs(code)
    kind = _BY_ERRNO.get(number)
    error = EalError(f"{message}: {os.strerror(number)}") if kind is None else kind(message)
    error.code = number
    return error
