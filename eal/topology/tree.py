# SPDX-License-Identifier: BSD-3-Clause
"""Tree: the small files of /sys and /proc, of this machine or of a captured copy."""

from __future__ import annotations

import os
import re

from eal.errors import Invalid, NotFound
from eal.topology.cpulist import parse_list, parse_mask

_CPU_DIRECTORY = "devices/system/cpu"


class Tree:
    """The files of one machine. `sys` and `proc` are the paths of its /sys and /proc; `live` is False for a capture."""

    def __init__(self, root: str | None = None) -> None:
        """Open a captured tree: `root` contains sys/ (as HWLOC_FSROOT does) or is that sys/. None: this machine.

        Raise NotFound if `root` has no CPU directory.
        """
        self.live = root is None
        self.root = os.fspath(root) if root is not None else "/"
        below = os.path.join(self.root, "sys")
        self.sys = below if os.path.isdir(os.path.join(below, _CPU_DIRECTORY)) else self.root
        self.proc = os.path.join(os.path.dirname(os.path.abspath(self.sys)), "proc")
        if not os.path.isdir(os.path.join(self.sys, _CPU_DIRECTORY)):
            raise NotFound(
                f"sysfs tree must contain sys/{_CPU_DIRECTORY}, got {self.root!r}; pass the parent directory of sys/"
            )

    def path(self, name: str) -> str:
        """Return the path of "sys/..." or "proc/..."; other names are relative to the same root (a cgroup mount)."""
        first, _, rest = name.partition("/")
        if first == "sys":
            return os.path.join(self.sys, rest)
        if first == "proc":
            return os.path.join(self.proc, rest)
        return os.path.join(os.path.dirname(self.proc), name)

    def text(self, name: str) -> str | None:
        """Return the text of a file without leading and trailing white space, or None if it cannot be read.

        Trailing NUL bytes are removed as well: tar pads captured sysfs files to a page.
        """
        try:
            fd = os.open(self.path(name), os.O_RDONLY)
        except OSError:
            return None
        try:
            data = os.read(fd, 65536)
            while data and (more := os.read(fd, 65536)):
                data += more
        except OSError:
            return None
        finally:
            os.close(fd)
        return data.rstrip(b"\0").decode(errors="replace").strip()

    def number(self, name: str) -> int | None:
        """Return the decimal number in a file, or None if the file is missing or contains something else."""
        text = self.text(name)
        try:
            return int(text) if text else None
        except ValueError:
            return None

    def mask(self, *names: str) -> int | None:
        """Return the CPU mask in the first of these files that exists, or None. Kernels have renamed some of the files.

        Raise Invalid if the file contains something else.
        """
        for name in names:
            text = self.text(name)
            if text:
                try:
                    return parse_mask(text)
                except Invalid as error:
                    raise Invalid(f"{self.path(name)}: {error}") from None
        return None

    def numbers(self, name: str) -> frozenset[int] | None:
        """Return the numbers of a CPU list in a file, or None if the file is missing.

        Raise Invalid if the file contains something else.
        """
        text = self.text(name)
        try:
            return None if text is None else parse_list(text)
        except Invalid as error:
            raise Invalid(f"{self.path(name)}: {error}") from None

    def names(self, directory: str) -> list[str]:
        """Return the sorted names in a directory, [] if the directory is missing."""
        try:
            return sorted(os.listdir(self.path(directory)))
        except OSError:
            return []

    def numbered(self, directory: str, prefix: str) -> list[int]:
        """Return N of each directory entry "<prefix>N", ascending."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\Z")
        return sorted(int(found[1]) for name in self.names(directory) if (found := pattern.match(name)))
