# SPDX-License-Identifier: BSD-3-Clause
"""GuestOutput: the output of a guest's command, split into lines, up to the marker with the exit status."""

from __future__ import annotations

from pathlib import Path


class GuestOutput:
    """Reads the file to which QEMU appends the output of the guest's second serial port.

    `status` is None until the marker "TOKEN STATUS" has arrived.
    """

    def __init__(self, path: Path, token: str) -> None:
        self.status: int | None = None
        self._path = path
        self._token = token.encode()
        self._data = bytearray()  # everything read so far; without the marker once status is known
        self._next = 0  # offset of the next line to return

    def read(self) -> bool:
        """Read new data; return True if there was any."""
        if self.status is not None or not self._path.exists():
            return False
        with open(self._path, "rb") as file:
            file.seek(len(self._data))
            new = file.read()
        searched = max(0, len(self._data) - len(self._token) - 8)  # the marker may arrive in two parts
        self._data += new
        self._take_marker(searched)
        return bool(new)

    def _take_marker(self, start: int) -> None:
        # The marker may follow a last line without a newline.
        marker = self._data.find(self._token, start)
        end = self._data.find(b"\n", marker)
        if marker >= 0 and end >= 0:
            self.status = int(self._data[marker + len(self._token) : end])
            del self._data[marker:]

    def next_line(self) -> str | None:
        """Return the next line without its newline; None if no complete line has arrived."""
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
