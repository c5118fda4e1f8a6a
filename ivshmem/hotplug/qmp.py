# SPDX-License-Identifier: BSD-3-Clause
"""QMP: questions, commands and events of a running QEMU, by the library qemu.qmp, without async."""

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

TIMEOUT = 5.0  # seconds for each answer; a QEMU that is stopped in a debugger gives none
EVENTS = ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR")  # those that are kept until somebody asks
_LOOK = 0.25  # seconds between two looks whether QEMU still lives, while an event is waited for

Answer = TypeVar("Answer")


class Qmp:
    """A connection to the QMP socket (a UNIX socket) of one QEMU, which serves one client at a time: so connect late
    and close early. It has an event loop of its own; from a coroutine, call it in another thread.

    Raises NotFound where nobody listens or QEMU ends, Stalled where it gives no answer, Invalid where it refuses a
    command. A context manager.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float | None = None) -> None:
        self.path = os.fspath(path)
        self.timeout = TIMEOUT if timeout is None else timeout
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(self.path)
        except OSError as error:
            self._socket.close()
            raise NotFound(f"no QEMU answers at the QMP socket {self.path!r}: {error.strerror or error}") from None
        self.pid = _peer(self._socket)
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("ivshmem")
        self._client.logger.disabled = True  # what it would log is raised
        self._events = EventListener(EVENTS)
        self._client.register_listener(self._events)
        try:
            self._run(self._client.connect(self._socket))
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """What a command returns."""
        return self._run(self._client.execute(command, arguments or None), command)

    def event(self, deadline: float) -> tuple[str, dict[str, Any]] | None:
        """Name and data of the next event of EVENTS that came since the connection was made; None where none comes
        until `deadline`, a time of `time.monotonic`.
        """
        while True:
            left = deadline - time.monotonic()
            try:
                message = self._loop.run_until_complete(
                    asyncio.wait_for(self._events.get(), max(0.001, min(left, _LOOK)))
                )
            except TimeoutError:
                if left <= 0:
                    return None
                self.execute("query-status")  # raises where QEMU ended: no event tells that
            else:
                data: dict[str, Any] = message.get("data", {})  # type: ignore[assignment]
                return str(message["event"]), data

    def _run(self, work: Coroutine[Any, Any, Answer], command: str = "the greeting") -> Answer:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, self.timeout))
        except ExecuteError as error:
            raise Invalid(f"QEMU at {self.path!r} refused {command}: {error}") from error
        except TimeoutError:
            raise Stalled(
                f"QEMU at {self.path!r} gave no answer to {command} in {self.timeout:g} s: another client may hold the "
                "socket"
            ) from None
        except (QMPError, OSError, EOFError) as error:
            raise NotFound(f"QEMU at {self.path!r} closed the connection: it ended ({error})") from error

    def close(self) -> None:
        """May be called twice."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._client.disconnect())
        except EalError:
            pass  # it was gone already
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._socket.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _peer(connected: socket.socket) -> int:
    """The process at the other end."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
