# SPDX-License-Identifier: BSD-3-Clause
"""A tree of /sys and /proc, live or captured, that small files are read from."""

from __future__ import annotations

import os
import re

from eal.errors import Invalid, NotFound
from eal.topology.cpulist import parse_list, parse_mask

_CPU_DIRECTORY = "devices/system/cpu"


class Tree:
    """The files below one root. `sys` and `proc` are the directories that stand for /sys and /proc."""

    def __init__(self, root: str | None = None) -> None:
        """`root` holds `sys/` (as HWLOC_FSROOT wants it) or is itself such a `sys`. None: this machine.

        Raises NotFound when no CPU directory is there.
        """
        self.live = root is None
        self.root = os.fspath(root) if root is not None else "/"
        below = os.path.join(self.root, "sys")
        self.sys = below if os.path.isdir(os.path.join(below, _CPU_DIRECTORY)) else self.root
        self.proc = os.path.join(os.path.dirname(os.path.abspath(self.sys)), "proc")
        if not os.path.isdir(os.path.join(self.sys, _CPU_DIRECTORY)):
            raise NotFound(f"no {_CPU_DIRECTORY} below {self.root!r}: name the directory that holds sys/")

    def path(self, name: str) -> str:
        """The file behind "sys/..." or "proc/..."; any other name lies beside them (a cgroup mount)."""
        first, _, rest = name.partition("/")
        if first == "sys":
            return os.path.join(self.sys, rest)
        if first == "proc":
            return os.path.join(self.proc, rest)
        return os.path.join(os.path.dirname(self.proc), name)

    def text(self, name: str) -> str | None:
        """What a file says, without its newline; None where it is missing or cannot be read.

        Captures made with tar pad files to a page with NUL bytes, so those go too.
        """
        try:
            handle = os.open(self.path(name), os.O_RDONLY)
        except OSError:
            return None
        try:
            data = os.read(handle, 65536)
            while data and (more := os.read(handle, 65536)):
                data += more
        except OSError:
            return None
        finally:
            os.close(handle)
        return data.rstrip(b"\0").decode(errors="replace").strip()

    def number(self, name: str) -> int | None:
        """A file with one decimal number; None where it is missing or holds something else."""
        text = self.text(name)
        try:
            return int(text) if text else None
        except ValueError:
            return None

    def mask(self, *names: str) -> int | None:
        """The CPU mask in the first of these files that is there (kernels renamed some of them)."""
        for name in names:
            text = self.text(name)
            if text:
                try:
                    return parse_mask(text)
                except Invalid as error:
                    raise Invalid(f"{self.path(name)}: {error}") from None
        return None

    def numbers(self, name: str) -> frozenset[int] | None:
        """A file with a list such as 0-3,8; None where it is missing, empty set where it is empty."""
        text = self.text(name)
        try:
            return None if text is None else parse_list(text)
        except Invalid as error:
            raise Invalid(f"{self.path(name)}: {error}") from None

    def names(self, directory: str) -> list[str]:
        """What is in a directory, sorted; empty where it is missing."""
        try:
            return sorted(os.listdir(self.path(directory)))
        except OSError:
            return []

    def numbered(self, directory: str, prefix: str) -> list[int]:
        """N of each entry prefixN of a directory, ascending."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\Z")
        return sorted(int(found[1]) for name in self.names(directory) if (found := pattern.match(name)))
