# SPDX-License-Identifier: BSD-3-Clause
"""Virtual machines: boot stock QEMU, run one command of the host's in the guest, take its output and status.

    with VM(VmConfig([sys.executable, "-P", "guest.py"], qemu_args=metadata.qemu_args())) as vm:
        for line in vm.lines():
            print(line)
        print(vm.wait().status)

The guest sees the host's root read-only. Writes to /tmp and /var/tmp stay in its memory; /run and /dev/shm
are its own, and empty. The command goes in as the fw_cfg item opt/ivshmem/job. Its output comes out of the
second serial port and ends with a marker line "TOKEN STATUS"; the first is the kernel's own.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from eal.errors import Closed, EalError, Invalid, NotFound, Stalled
from ivshmem.scratch import Scratch
from ivshmem.vm.console import GuestOutput
from ivshmem.vm.image import GuestImage, cache_dir, prepare, require

log = logging.getLogger(__name__)

ACCELERATORS = {"tcg": "tcg,thread=multi", "kvm": "kvm"}  # name -> QEMU's -accel
HOST_ROOT_SLOT = "1e"  # of pcie.0; high, so that devices placed from slot 1 upwards do not meet it
GUEST_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",  # the output is a terminal to the command, but nobody wants colours in it
    "PYTHONDONTWRITEBYTECODE": "1",
}
POLL = 0.01  # seconds between two looks at the output
GRACE = 5.0  # seconds that QEMU has to end after SIGTERM
KVM_PROBE = 10.0  # seconds; a guest that has KVM is through in two
TAIL = 60  # lines of each log that an error shows: a kernel's panic fits


@dataclass(frozen=True)
class VmConfig:
    """What to boot and run. Everything here is data; `qemu_command` turns it into a command line.

    command      program and arguments, as the host's root has them; looked up in the guest's PATH
    qemu_args    more QEMU options, after ours: devices (slot 1e of pcie.0 is taken), -numa, ...
    smp          virtual CPUs; under TCG at least 2
    memory       MiB
    env          the command's environment, on top of GUEST_ENV; nothing of the host's own is inherited
    kernel_args  more kernel parameters, "hugepages=16" for one
    qmp          where QEMU makes its QMP socket; it is there when `start` returns
    machine      QEMU's -machine
    accel        "kvm", "tcg" or "auto"; None asks $IVSHMEM_ACCEL and then means "auto"
    timeout      seconds from `start` until the command must have ended
    """

    command: Sequence[str]
    _: KW_ONLY
    qemu_args: Sequence[str] = ()
    smp: int = 2
    memory: int = 512
    env: Mapping[str, str] = field(default_factory=dict)
    kernel_args: Sequence[str] = ()
    qmp: Path | None = None
    machine: str = "q35"
    accel: str | None = None
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if isinstance(self.command, str) or not self.command:
            raise Invalid(f"command {self.command!r}: give a list of a program and its arguments")
        for word in (*self.command, *self.env, *self.env.values()):
            if "\0" in word:
                raise Invalid(f"{word!r} has a NUL in it, which no command or environment can carry")
        for name in self.env:
            if not name or "=" in name:
                raise Invalid(f"{name!r} is no name of an environment variable")
        if self.smp < 1 or self.memory < 128:
            raise Invalid(f"smp {self.smp}, memory {self.memory} MiB: the guest needs 1 CPU and 128 MiB or more")


@dataclass(frozen=True)
class Result:
    """How a guest's command ended.

    `output` is its stdout and stderr, `status` its exit status (128 + N when signal N ended it), `console`
    what the guest's kernel and init said.
    """

    output: str
    status: int
    console: str


def qemu_command(config: VmConfig, image: GuestImage, accel: str, folder: Path) -> list[str]:
    """QEMU's command line. `folder` holds the file `job` and gets the files `console` and `output`."""
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-display", "none"]
    command += ["-machine", config.machine]
    command += ["-accel", ACCELERATORS[accel]]
    command += ["-cpu", "max"]
    command += ["-smp", str(config.smp)]
    command += ["-m", f"{config.memory}M"]
    command += ["-kernel", str(image.kernel)]
    command += ["-initrd", str(image.initrd)]
    # mitigations=off: a throw-away guest guards no secrets, and emulated Python starts a quarter faster.
    kernel_args = ["console=ttyS0", "quiet", "panic=-1", "mitigations=off", *config.kernel_args]
    command += ["-append", " ".join(kernel_args)]
    command += ["-fw_cfg", f"name=opt/ivshmem/job,file={_escaped(folder / 'job')}"]
    for port in ("console", "output"):  # ttyS0, ttyS1
        command += ["-chardev", f"file,id=vm-{port},path={_escaped(folder / port)}"]
        command += ["-serial", f"chardev:vm-{port}"]
    command += ["-fsdev", "local,id=vm-root,path=/,security_model=none,readonly=on,multidevs=remap"]
    command += ["-device", f"virtio-9p-pci,fsdev=vm-root,mount_tag=hostroot,addr={HOST_ROOT_SLOT}"]
    if config.qmp is not None:
        command += ["-qmp", f"unix:{_escaped(config.qmp)},server=on,wait=off"]
    return [*command, *config.qemu_args]


def job_script(config: VmConfig, token: str) -> str:
    """What init sources: the marker's token, and the words of the command as positional parameters."""
    env = [f"{name}={value}" for name, value in {**GUEST_ENV, **config.env}.items()]
    chroot = ["chroot", "/host", "/bin/sh", "-c", 'cd /tmp && exec "$@"', "sh"]
    return f"token={token}\nset -- {shlex.join(['env', '-i', *env, *chroot, *config.command])}\n"


def _escaped(path: Path) -> str:
    return str(path.absolute()).replace(",", ",,")  # QEMU's options end at a comma


class VM:
    """One run of one virtual machine; QEMU never outlives it.

    | state    | comes by         | then                                                           |
    |----------|------------------|----------------------------------------------------------------|
    | new      | VM(config)       | start                                                          |
    | running  | start, with      | lines, wait, close                                             |
    | ended    | wait, close, any | what was read: lines, and wait if the command's status is known |
    |          | error            | (else both raise Closed); not start                            |

    Every error (a timeout and an exception inside `with` among them) ends QEMU first. When this process dies,
    even by SIGKILL, the kernel kills QEMU (PR_SET_PDEATHSIG). That binds QEMU to the *thread* that called
    `start`: start a VM from one that lives as long as the VM shall.
    """

    def __init__(self, config: VmConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Scratch | None = None
        self._folder: Path | None = None
        self._output: GuestOutput | None = None
        self._result: Result | None = None
        self._deadline = 0.0

    @property
    def pid(self) -> int | None:
        """QEMU's process id, None before `start`."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start QEMU. Raises NotFound when the machine lacks something, Invalid for one CPU under TCG."""
        if self._process is not None:
            raise Invalid("this VM was started before: make another VM of the same config")
        require()
        accel = accelerator(self.config.accel)
        if accel == "tcg" and self.config.smp < 2:
            raise Invalid(
                "smp=1 under TCG: QEMU emulates the atomic instructions of a lone CPU without atomicity, so "
                "memory shared with the host would be corrupted. Use smp=2 or more"
            )
        image = prepare()
        try:
            self._launch(image, accel)
            self._await_qmp()
        except BaseException:
            self.close()
            raise

    def alive(self) -> bool:
        """Whether the guest's command still runs, as far as its output tells by now."""
        if self._process is None or self._output is None or self._process.poll() is not None:
            return False
        self._output.read()
        return self._output.status is None

    def lines(self, timeout: float | None = None) -> Iterator[str]:
        """The command's output, line by line as it comes, without newlines; goes on where the last call left.

        Ends when the command has ended. `timeout`: seconds from now; None is what is left of the config's.
        Raises Stalled after it, EalError if the guest dies, Closed after an early close(); QEMU is gone then.
        """
        deadline = self._until(timeout)
        output = self._started()
        while True:
            if (line := output.next_line()) is not None:
                yield line
            elif output.status is not None:
                return
            else:
                self._poll(deadline)

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until the command has ended, end QEMU, return the result. Timeout and errors as in `lines`."""
        deadline = self._until(timeout)
        output = self._started()
        while output.status is None:
            self._poll(deadline)
        # The command is over, and what it shared is in the host's files: no need to see the guest power off.
        self.close()
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """End QEMU and remove this VM's files. May be called again, and in any state."""
        try:
            if self._process is not None:
                self._process.terminate()  # not SIGKILL at once: QEMU removes its QMP socket
                self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            log.warning("QEMU %d did not end after SIGTERM, killing it", self.pid)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self._keep_result()
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = self._folder = None

    def __enter__(self) -> VM:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _launch(self, image: GuestImage, accel: str) -> None:
        self._scratch = Scratch("vm")
        self._folder = self._scratch.path
        token = secrets.token_hex(16)
        self._output = GuestOutput(self._folder / "output", token)
        (self._folder / "job").write_text(job_script(self.config, token))
        command = [*_BOUND_TO_US, str(os.getpid()), *qemu_command(self.config, image, accel, self._folder)]
        log.debug("starting %s", shlex.join(command))
        with open(self._folder / "qemu", "wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # a Ctrl-C at the terminal is for us to handle
            )
        self._deadline = time.monotonic() + self.config.timeout

    def _await_qmp(self) -> None:
        while self.config.qmp is not None and not self.config.qmp.exists():
            self._poll(self._deadline)

    def _keep_result(self) -> None:
        if self._result is None and self._output is not None and self._output.status is not None:
            self._result = Result(self._output.text(), self._output.status, self._log("console"))

    def _until(self, timeout: float | None) -> float:
        return self._deadline if timeout is None else time.monotonic() + timeout

    def _started(self) -> GuestOutput:
        if self._output is None:
            raise Closed("this VM was not started: use it in `with`, or call start()")
        return self._output

    def _poll(self, deadline: float) -> None:
        """Take new output, or wait a moment for it; raise when there will be none."""
        process, output = self._process, self._started()
        if process is None or self._folder is None:
            raise Closed("this VM was closed before its command ended")
        gone = process.poll() is not None  # asked before the read: what a dead QEMU wrote is all there
        if output.read() or output.status is not None:
            return
        if gone:
            raise self._failed(EalError, f"QEMU ended (status {process.returncode}) before the guest's command did")
        if time.monotonic() > deadline:
            raise self._failed(Stalled, f"the guest's command did not end in time (config: {self.config.timeout} s)")
        time.sleep(POLL)

    def _failed(self, kind: type[EalError], what: str) -> EalError:
        """End QEMU and return an error that carries the ends of all logs."""
        logs = {"QEMU": "qemu", "guest's console": "console", "command's output": "output"}
        tails = [f"--- {title}\n{_tail(self._log(name))}" for title, name in logs.items()]
        self.close()
        return kind("\n".join([f"{what}: {shlex.join(self.config.command)}", *tails]))

    def _log(self, name: str) -> str:
        if self._folder is None or not (self._folder / name).exists():
            return ""
        return (self._folder / name).read_text(errors="replace").replace("\r\n", "\n")


# QEMU dies with us: setpriv asks the kernel for that, and the shell checks that we had not died before (its
# $0 is our pid). An abort of QEMU's leaves no core file.
_BOUND_TO_US = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", 'ulimit -c 0; [ "$PPID" = "$0" ] && exec "$@"']


def run(command: Sequence[str], **options: Any) -> Result:
    """Boot a VM, run `command` in it, return the Result. `options` are VmConfig's; errors are VM's."""
    with VM(VmConfig(command, **options)) as vm:
        return vm.wait()


def accelerator(wish: str | None = None) -> str:
    """The name of the accelerator to use: kvm where it works, else tcg.

    `wish` (or $IVSHMEM_ACCEL) "kvm" or "tcg" is taken as it is, "auto" finds out. That /dev/kvm opens proves
    nothing: nested and paravirtual hosts offer one that makes VMs and cannot run a stock kernel in them. So a
    guest is booted once with KVM, and the verdict is kept in the cache until the host reboots.
    """
    wish = wish or os.environ.get("IVSHMEM_ACCEL") or "auto"
    if wish in ACCELERATORS:
        return wish
    if wish != "auto":
        raise Invalid(f"accelerator {wish!r}: use kvm, tcg or auto (accel= or $IVSHMEM_ACCEL)")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    verdict = verdict_file()
    if not verdict.exists():
        found = _probe_kvm()
        for old in cache_dir().glob("accel-*"):
            old.unlink(missing_ok=True)
        verdict.write_text(found)
    return verdict.read_text()


def verdict_file() -> Path:
    """Where the name of the accelerator is kept that was found to work on this machine; perhaps not there yet."""
    return cache_dir() / f"accel-{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"


def _probe_kvm() -> str:
    try:
        run(["true"], accel="kvm", timeout=KVM_PROBE)
    except NotFound:  # nothing was tried
        raise
    except EalError as error:
        log.info("KVM does not work here, using TCG: %s", error)
        return "tcg"
    return "kvm"


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL:])
