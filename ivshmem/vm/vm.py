# SPDX-License-Identifier: BSD-3-Clause
"""Virtual machines: boot stock QEMU, run one command of the host in the guest, return its output and exit status.

    with VM(VmConfig([sys.executable, "-P", "guest.py"], qemu_args=metadata.qemu_args())) as vm:
        for line in vm.lines():
            print(line)
        print(vm.wait().status)

The guest mounts the host's root read-only. Writes to /tmp and /var/tmp stay in guest memory; /run and /dev/shm are
separate, empty file systems. QEMU passes the command as fw_cfg item opt/ivshmem/job. The guest's kernel writes to the
first serial port; the command writes to the second one, which ends with a marker line "TOKEN STATUS".
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from eal.errors import Closed, EalError, Invalid, NotFound, Stalled
from ivshmem.scratch import Scratch
from ivshmem.vm import accelerator
from ivshmem.vm.command import job_script, qemu_command
from ivshmem.vm.config import VmConfig
from ivshmem.vm.console import GuestOutput
from ivshmem.vm.image import GuestImage, prepare, require

log = logging.getLogger(__name__)

_POLL_INTERVAL = 0.01  # seconds between two reads of the guest's output
_TERM_TIMEOUT = 5.0  # seconds from SIGTERM to SIGKILL of QEMU
_KVM_TIMEOUT = 10.0  # seconds to boot a guest with KVM, which takes 2 s
_TAIL_LINES = 60  # lines of each log in an error; enough for a kernel panic

# setpriv makes the kernel kill QEMU when this process ends; the shell exits if this process ended before ($0 is its
# pid), and prevents core files of QEMU.
_BIND_TO_PARENT = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", 'ulimit -c 0; [ "$PPID" = "$0" ] && exec "$@"']


@dataclass(frozen=True)
class Result:
    """Result of a guest's command.

    `output` is its stdout and stderr, `status` its exit status (128 + N for signal N), `console` the messages of the
    guest's kernel and init.
    """

    output: str
    status: int
    console: str


class VM:
    """One run of one virtual machine. QEMU never outlives this process.

    | state    | entered by        | allowed calls                                                  |
    |----------|-------------------|----------------------------------------------------------------|
    | new      | VM(config)        | start                                                          |
    | running  | start, `with`     | lines, wait, close                                             |
    | ended    | wait, close, any  | lines, and wait if the command's status is known; both raise   |
    |          | error             | Closed otherwise                                               |

    Every error, including a timeout and an exception inside `with`, ends QEMU first. If this process dies, even by
    SIGKILL, the kernel kills QEMU (PR_SET_PDEATHSIG). The kernel also kills QEMU when the *thread* that called `start`
    ends: start a VM from a thread that lives as long as the VM.
    """

    def __init__(self, config: VmConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Scratch | None = None
        self._output: GuestOutput | None = None
        self._result: Result | None = None
        self._deadline = 0.0

    @property
    def pid(self) -> int | None:
        """QEMU's process id; None before `start`."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start QEMU. Raises NotFound if a program is missing, Invalid for one CPU under TCG."""
        if self._process is not None:
            raise Invalid("VM was already started: create a new VM with the same config")
        require()
        accel = accelerator.choose(self.config.accel, _kvm_works)
        if accel == "tcg" and self.config.smp < 2:
            raise Invalid(
                "smp must be >= 2 under TCG, got 1: with one CPU, QEMU emulates atomic instructions without atomicity, "
                "which corrupts memory shared with the host"
            )
        image = prepare()
        try:
            self._launch(image, accel)
            self._wait_for_qmp()
        except BaseException:
            self.close()
            raise

    def alive(self) -> bool:
        """Return True until the end of the guest's command appears in its output, or QEMU ends."""
        if self._process is None or self._output is None or self._process.poll() is not None:
            return False
        self._output.read()
        return self._output.status is None

    def lines(self, timeout: float | None = None) -> Iterator[str]:
        """Yield the lines of the command's output as they arrive, without newlines, after those already returned.

        Ends when the command has ended. `timeout`: seconds from now; None: the rest of the config's timeout. Raises
        Stalled on timeout, EalError if the guest dies, Closed after close() before the end; QEMU is ended by each.
        """
        deadline = self._deadline_of(timeout)
        output = self._started_output()
        while True:
            if (line := output.next_line()) is not None:
                yield line
            elif output.status is not None:
                return
            else:
                self._poll(deadline)

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until the command has ended, end QEMU, and return the result. Timeout and errors as in `lines`."""
        deadline = self._deadline_of(timeout)
        output = self._started_output()
        while output.status is None:
            self._poll(deadline)
        # The command's writes to shared memory are already in the host's files: skip the guest's shutdown.
        self.close()
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """End QEMU and remove the files of this VM. Idempotent, in any state."""
        try:
            if self._process is not None:
                self._process.terminate()  # not SIGKILL: on SIGTERM QEMU removes its QMP socket
                self._process.wait(_TERM_TIMEOUT)
        except subprocess.TimeoutExpired:
            log.warning("QEMU %d did not end after SIGTERM, sending SIGKILL", self.pid)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self._keep_result()
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None

    def __enter__(self) -> VM:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _launch(self, image: GuestImage, accel: str) -> None:
        self._scratch = Scratch("vm")
        folder = self._scratch.path
        token = secrets.token_hex(16)
        self._output = GuestOutput(folder / "output", token)
        (folder / "job").write_text(job_script(self.config, token))
        command = [*_BIND_TO_PARENT, str(os.getpid()), *qemu_command(self.config, image, accel, folder)]
        log.debug("starting %s", shlex.join(command))
        with open(folder / "qemu", "wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C at the terminal is handled by this process, not by QEMU
            )
        self._deadline = time.monotonic() + self.config.timeout

    def _wait_for_qmp(self) -> None:
        while self.config.qmp is not None and not self.config.qmp.exists():
            self._poll(self._deadline)

    def _keep_result(self) -> None:
        if self._result is None and self._output is not None and self._output.status is not None:
            self._result = Result(self._output.text(), self._output.status, self._log("console"))

    def _deadline_of(self, timeout: float | None) -> float:
        return self._deadline if timeout is None else time.monotonic() + timeout

    def _started_output(self) -> GuestOutput:
        if self._output is None:
            raise Closed("VM was not started: use it in a `with` statement, or call start()")
        return self._output

    def _poll(self, deadline: float) -> None:
        """Read new output, or sleep for one interval. Raise if there will be no more output."""
        process, output = self._process, self._started_output()
        if process is None or self._scratch is None:
            raise Closed("VM was closed before its command ended")
        ended = process.poll() is not None  # test before the read, which then returns everything that QEMU wrote
        if output.read() or output.status is not None:
            return
        if ended:
            raise self._failure(EalError, f"QEMU ended (status {process.returncode}) before the guest's command")
        if time.monotonic() > deadline:
            raise self._failure(Stalled, f"guest's command did not end in time (timeout {self.config.timeout} s)")
        time.sleep(_POLL_INTERVAL)

    def _failure(self, kind: type[EalError], summary: str) -> EalError:
        """End QEMU and return an error with the tail of each log."""
        logs = {"QEMU": "qemu", "guest's console": "console", "command's output": "output"}
        tails = [f"--- {title}\n{_tail(self._log(name))}" for title, name in logs.items()]
        self.close()
        return kind("\n".join([f"{summary}: {shlex.join(self.config.command)}", *tails]))

    def _log(self, name: str) -> str:
        if self._scratch is None or not (self._scratch.path / name).exists():
            return ""
        return (self._scratch.path / name).read_text(errors="replace").replace("\r\n", "\n")


def run(command: Sequence[str], **options: Any) -> Result:
    """Boot a VM, run `command` in it and return the Result. `options` are those of VmConfig, errors those of VM."""
    with VM(VmConfig(command, **options)) as vm:
        return vm.wait()


def _kvm_works() -> bool:
    try:
        run(["true"], accel="kvm", timeout=_KVM_TIMEOUT)
    except NotFound:  # a program is missing: KVM was not tried
        raise
    except EalError as error:
        log.info("KVM cannot run a guest on this machine, using TCG: %s", error)
        return False
    return True


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
