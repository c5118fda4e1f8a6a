# SPDX-License-Identifier: BSD-3-Clause
"""Read-only mounts: a descriptor through which no process, not even root, can open a file for writing."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import warnings
from pathlib import Path

from eal.errors import Denied

# Constants of <linux/mount.h>, <sched.h> and <asm-generic/unistd.h>; identical on every architecture.
_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_OPEN_TREE_CLONE, _AT_FDCWD, _AT_EMPTY_PATH, _MOUNT_ATTR_RDONLY = 1, -100, 0x1000, 1
_NEWUSER, _NEWNS = 0x1000_0000, 0x0002_0000


def open_readonly(path: Path) -> int:
    """Return a descriptor N of a read-only mount of a file: opening /proc/PID/fd/N for writing fails with EROFS.

    The mount is detached (visible at no path) and ends with the descriptor. If this process may not mount, a child
    process does it in a new user namespace. Raises Denied if the kernel refuses both, OSError if the file is missing.
    """
    os.stat(path)
    try:
        return _mount(path)
    except OSError as error:
        if fd := _mount_in_child(path):
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


def _mount_in_child(path: Path) -> int:
    """Return the descriptor of a mount made by a child process; 0 if the kernel refuses."""
    parent_end, child_end = socket.socketpair()
    with parent_end, child_end:
        with warnings.catch_warnings():
            # Python warns of fork in a process with threads. The child takes no lock that another thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                _send_mount(child_end, path)
            finally:
                os._exit(0)
        child_end.close()
        _, fds, _, _ = socket.recv_fds(parent_end, 1, 1)
        os.waitpid(child, 0)
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds[0] if fds else 0


def _send_mount(channel: socket.socket, path: Path) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_NEWUSER | _NEWNS) == 0:
        socket.send_fds(channel, [b"."], [_mount(path)])
