# SPDX-License-Identifier: BSD-3-Clause
"""Run part of a test in a forked child process."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

TIME_LIMIT = 120  # seconds


def in_child(work: Callable[[], object]) -> None:
    """Call `work` in a forked child; fail with the traceback of the child, or else with its wait status."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(TIME_LIMIT)  # ends a child that blocks on a lock whose owner thread fork did not copy
        os.close(reader)
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        trace = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, trace or f"status {status:#x}"
