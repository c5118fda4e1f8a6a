# SPDX-License-Identifier: BSD-3-Clause
"""Guest output: what a guest's command prints, split at lines and at the marker that ends it."""

from __future__ import annotations

from pathlib import Path


class GuestOutput:
    """The guest's second serial port: a file that QEMU appends to, split at lines and at the marker."""

    def __init__(self, path: Path, token: str) -> None:
        self.status: int | None = None
        self._path = path
        self._token = token.encode()
        self._data = bytearray()  # all that was read; the command's output alone once status is known
        self._next = 0  # offset of the first line that next_line has not returned

    def read(self) -> bool:
        """Take what is new; True if there was something."""
        if self.status is not None or not self._path.exists():
            return False
        with open(self._path, "rb") as file:
            file.seek(len(self._data))
            new = file.read()
        searched = max(0, len(self._data) - len(self._token) - 8)  # a marker may come in two pieces
        self._data += new
        self._take_marker(searched)
        return bool(new)

    def _take_marker(self, start: int) -> None:
        # The marker need not begin a line: the command's last line may lack its newline.
        marker = self._data.find(self._token, start)
        end = self._data.find(b"\n", marker)
        if marker >= 0 and end >= 0:
            self.status = int(self._data[marker + len(self._token) : end])
            del self._data[marker:]

    def next_line(self) -> str | None:
        """The next line without its newline, or None when there is no whole one yet."""
        end = self._data.find(b"\n", self._next)
        if end < 0:
            if self.status is None or self._next == len(self._data):
                return None
            end = len(self._data)
        line = self._data[self._next : end]
        self._next = min(end + 1, len(self._data))
        return line.decode(errors="replace")

    def text(self) -> str:
        return self._data.decode(errors="replace")
