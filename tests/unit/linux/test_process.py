# SPDX-License-Identifier: BSD-3-Clause
"""eal.linux.process: owner words, process words, detection of dead processes, fork count."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from eal.linux import process

OTHER_MACHINE = (process.machine_id() ^ 1) << 32 | os.getpid()


def test_owner_word_has_machine_and_thread() -> None:
    owner = process.decode_owner(process.owner_word(), process.process_word())
    assert (owner.machine, owner.thread, owner.pid) == (
        process.machine_id(),
        threading.get_native_id(),
        os.getpid(),
    )
    assert process.local_pid(process.process_owner_word()) == os.getpid()
    assert process.local_pid(OTHER_MACHINE) is None
    assert process.local_pid(0) is None


def test_format_owner_contains_known_fields() -> None:
    owner = 0x1A2B3C4D << 32 | 77
    assert process.format_owner(owner) == "machine 1a2b3c4d thread 77"
    assert process.format_owner(owner, 70 << 40 | 5) == "machine 1a2b3c4d thread 77 of process 70"
    assert process.format_owner(owner, 70 << 40, "dead") == "machine 1a2b3c4d thread 77 of process 70 (dead)"
    assert process.format_owner(owner, state="alive") == "machine 1a2b3c4d thread 77 (alive)"
    assert process.format_owner(0) == "none"


def test_live_process_is_not_dead_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = process.machine_id() << 32 | child.pid
    word = child.pid << 40 | process.start_time(child.pid)
    assert (process.owner_state(owner), process.is_dead(owner, word)) == ("alive", False)
    child.communicate(b"\n")
    assert (process.owner_state(owner), process.is_dead(owner, word)) == ("dead", True)
    assert not process.is_dead(owner, process.process_word())  # only the thread ended; the process is alive
    assert process.start_time(child.pid) == 0


def test_owner_of_other_machine_is_never_dead() -> None:
    assert process.owner_state(OTHER_MACHINE) == "unknown"
    assert not process.is_dead(OTHER_MACHINE, 0)


def test_owner_with_reused_pid_is_dead() -> None:
    dead_thread = process.machine_id() << 32 | 0x3F_FFFF
    assert process.is_dead(dead_thread, process.process_word() + 1)


HANDLERS = """
import os
register, modules = os.register_at_fork, []
def note(**handlers):
    modules.extend(f"{name} {handler.__module__}" for name, handler in handlers.items())
    register(**handlers)
os.register_at_fork = note
import eal.lifecycle.startup, ivshmem.cli, ivshmem.demo.host, ivshmem.emulate.runner, ivshmem.vm.vm, eal.jit
print(*(m for m in modules if m.split(" ")[1].startswith(("eal", "ivshmem"))), sep="\\n")
"""


def test_fork_count_handler_runs_before_eal_handler() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", HANDLERS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "after_in_child eal.linux.process",
        "after_in_child eal.lifecycle.startup",
    ]
