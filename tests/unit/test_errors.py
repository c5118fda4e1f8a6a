# SPDX-License-Identifier: BSD-3-Clause
"""eal.errors: base classes, errno and message of each error."""

from __future__ import annotations

import errno

import pytest

import eal
from eal import errors


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (eal.NotFound, LookupError),
        (eal.Exists, FileExistsError),
        (eal.Invalid, ValueError),
        (eal.InvalidType, TypeError),
        (eal.InvalidType, eal.Invalid),
        (eal.NoMemory, MemoryError),
        (eal.Denied, PermissionError),
        (eal.InUse, OSError),
        (eal.Corrupt, ValueError),
        (eal.Stalled, TimeoutError),
        (eal.Closed, eal.EalError),
        (eal.Detached, eal.EalError),
        (eal.Stale, eal.EalError),
    ],
)
def test_error_has_builtin_base_and_keeps_message(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)
    assert issubclass(kind, eal.EalError)
    assert str(kind("a complete message")) == "a complete message"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, eal.NotFound),
        (errno.EEXIST, eal.Exists),
        (errno.EINVAL, eal.Invalid),
        (errno.ENOMEM, eal.NoMemory),
        (errno.ENOSPC, eal.NoMemory),
        (errno.EACCES, eal.Denied),
        (errno.EPERM, eal.Denied),
        (errno.EBUSY, eal.InUse),
        (errno.ETIMEDOUT, eal.Stalled),
        (errno.ESHUTDOWN, eal.Closed),
        (errno.ENODEV, eal.Detached),
        (errno.ESTALE, eal.Stale),
        (errno.EXDEV, eal.EalError),
    ],
)
def test_from_errno_returns_class_code_and_message(code: int, kind: type[eal.EalError]) -> None:
    for number in (code, -code):
        error = errors.from_errno(number, "the message")
        assert type(error) is kind
        assert error.code == code
        assert "the message" in str(error)
