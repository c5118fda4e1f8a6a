# SPDX-License-Identifier: BSD-3-Clause
"""Read-only mounts: a file as somebody sees it who may not write there, root included."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import warnings
from pathlib import Path

from eal.errors import Denied

# Of Linux, the same on every processor: <linux/mount.h>, <sched.h>, <asm-generic/unistd.h>.
_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_OPEN_TREE_CLONE, _AT_FDCWD, _AT_EMPTY_PATH, _MOUNT_ATTR_RDONLY = 1, -100, 0x1000, 1
_NEWUSER, _NEWNS = 0x1000_0000, 0x0002_0000


def open_readonly(path: Path) -> int:
    """A descriptor through which a file cannot be opened for writing: /proc/PID/fd/N of it gives EROFS, whoever asks.

    It is of a mount of the file that is in no folder, and goes with the descriptor. Where this process may not mount,
    a child in a user namespace of its own does it. Raises Denied where the kernel lets neither, OSError for no file.
    """
    os.stat(path)
    try:
        return _mount(path)
    except OSError as error:
        if fd := _by_child(path):
            return fd
        raise Denied(f"cannot mount {path} read-only: {error.strerror}") from error


def _mount(path: Path) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)  # set, clear, propagation, user namespace
    if libc.syscall(_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, attributes, len(attributes)):
        error = ctypes.get_errno()
        os.close(fd)
        raise OSError(error, os.strerror(error))
    return fd


def _by_child(path: Path) -> int:
    """0 where the child cannot do it either."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of other threads: the child waits for none of them
            child = os.fork()
        if child == 0:
            try:
                _send(theirs, path)
            finally:
                os._exit(0)
        theirs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        os.waitpid(child, 0)
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds[0] if fds else 0


def _send(door: socket.socket, path: Path) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_NEWUSER | _NEWNS) == 0:
        socket.send_fds(door, [b"."], [_mount(path)])
