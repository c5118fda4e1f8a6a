# SPDX-License-Identifier: BSD-3-Clause
"""QMP: commands to a running QEMU and events from it, synchronously, by the library qemu.qmp."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from qemu.qmp import EventListener, ExecuteError, QMPClient
from qemu.qmp.error import QMPError

from eal.errors import EalError, Invalid, NotFound, Stalled

TIMEOUT = 5.0  # seconds for each response; a QEMU that is stopped by a debugger does not respond
EVENTS = ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR")  # queued until `Qmp.event` reads them
_CHECK = 0.25  # seconds between two checks that QEMU still runs, while waiting for an event

Response = TypeVar("Response")


class CommandRejected(Invalid):
    """QEMU rejected a command; `description` is the text of QEMU's error."""

    def __init__(self, message: str, description: str) -> None:
        super().__init__(message)
        self.description = description


class Qmp:
    """A connection to the QMP socket (a UNIX socket) of a QEMU; a context manager.

    QEMU serves one client at a time, so connect late and close early. The connection has an event loop of its own: from
    a coroutine, call it in another thread.

    Raise NotFound if no process listens or QEMU ends, Stalled if it does not respond, CommandRejected if it rejects a
    command.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float | None = None) -> None:
        self.path = os.fspath(path)
        self.timeout = TIMEOUT if timeout is None else timeout
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(self.path)
        except OSError as error:
            self._socket.close()
            raise NotFound(f"no QEMU listens at the QMP socket {self.path!r}: {error.strerror or error}") from None
        self.pid = _peer_pid(self._socket)
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("ivshmem")
        self._client.logger.disabled = True  # its errors are raised
        self._events = EventListener(EVENTS)
        self._client.register_listener(self._events)
        try:
            self._run(self._client.connect(self._socket))
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command and return its result."""
        return self._run(self._client.execute(command, arguments or None), command)

    def event(self, deadline: float) -> tuple[str, dict[str, Any]] | None:
        """Return name and data of the next event of EVENTS since the connection was opened.

        Return None if no event arrives before `deadline`, a time of `time.monotonic`.
        """
        while True:
            left = deadline - time.monotonic()
            try:
                message = self._loop.run_until_complete(
                    asyncio.wait_for(self._events.get(), max(0.001, min(left, _CHECK)))
                )
            except TimeoutError:
                if left <= 0:
                    return None
                self.execute("query-status")  # raises if QEMU has ended, for which there is no event
            else:
                data: dict[str, Any] = message.get("data", {})  # type: ignore[assignment]
                return str(message["event"]), data

    def _run(self, work: Coroutine[Any, Any, Response], command: str = "the greeting") -> Response:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, self.timeout))
        except ExecuteError as error:
            raise CommandRejected(f"QEMU at {self.path!r} rejected {command}: {error}", str(error)) from error
        except TimeoutError:
            raise Stalled(
                f"QEMU at {self.path!r} did not respond to {command} within {self.timeout:g} s: another client may "
                "use the socket"
            ) from None
        except (QMPError, OSError, EOFError) as error:
            raise NotFound(f"QEMU at {self.path!r} closed the connection: it has ended ({error})") from error

    def close(self) -> None:
        """Close the connection. May be called twice."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._client.disconnect())
        except EalError:
            pass  # QEMU has closed the connection
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._socket.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _peer_pid(connected: socket.socket) -> int:
    """Return the pid of the process that listens, 0 if it is in another pid namespace."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
