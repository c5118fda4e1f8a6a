# SPDX-License-Identifier: BSD-3-Clause
"""VM harness: input and output of a guest's command, errors of QEMU and the guest, and the end of QEMU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from eal.errors import Closed, EalError, Stalled
from ivshmem.vm.config import VmConfig
from ivshmem.vm.vm import VM, run

pytestmark = [pytest.mark.vm]

MIB = 1 << 20

GUEST = """
import json, mmap, os, sys
from pathlib import Path
import numpy

device, = (d for d in Path("/sys/bus/pci/devices").iterdir() if (d / "device").read_text() == "0x1110\\n")
start, end, _ = (int(word, 16) for word in (device / "resource").read_text().splitlines()[2].split())
(device / "enable").write_text("1")
with open(device / "resource2", "r+b") as file:
    bar = numpy.frombuffer(mmap.mmap(file.fileno(), 0), numpy.uint8)
text = bytes(bar[4096:4096 + 11]).decode()
bar[8192:8192 + 5] = list(b"guest")

Path("/dev/kmsg").write_text("<0>message of the kernel\\n")
Path("/tmp/scratch").write_text("writable")
print(json.dumps({
    "arguments": sys.argv[1:], "cwd": os.getcwd(), "cpus": os.cpu_count(), "home": os.environ["HOME"],
    "greeting": os.environ["GREETING"], "inherited": "PYTEST_CURRENT_TEST" in os.environ,
    "bar_size": end - start + 1, "text": text, "run": os.listdir("/run"),
    "hugepages": int(Path("/proc/sys/vm/nr_hugepages").read_text()),
}))
sys.stdout.flush()
os.write(2, b"to stderr: \\xc3\\xbc\\r\\n\\ttab, no newline at the end")
sys.exit(7)
"""


def is_running(pid: int) -> bool:
    """Return True if a process exists and is not a zombie (PID 1 may not reap orphans)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_guest_runs_python_script_with_an_ivshmem_device(tmp_path: Path) -> None:
    memory = tmp_path / "memory, with a comma"
    memory.write_bytes(bytes(4096) + b"hello guest" + bytes(2 * MIB - 4096 - 11))
    script = tmp_path / "guest.py"
    script.write_text(GUEST)
    arguments = ["two words", "$HOME 'quoted' \"twice\"", "ünïcode\nand a line"]

    result = run(
        [sys.executable, "-P", str(script), *arguments],
        env={"GREETING": "it's a=b"},
        kernel_args=["hugepages=3"],
        qemu_args=[
            *(
                "-object",
                f"memory-backend-file,id=m,size=2M,share=on,mem-path={str(memory).replace(',', ',,')}",
            ),
            *("-device", "ivshmem-plain,memdev=m,addr=5"),
        ],
    )

    assert result.status == 7, result.output
    first, _, rest = result.output.partition("\n")
    assert json.loads(first) == {
        "arguments": arguments,
        "cwd": "/tmp",
        "cpus": 2,
        "home": "/root",
        "greeting": "it's a=b",
        "inherited": False,
        "bar_size": 2 * MIB,
        "text": "hello guest",
        "run": [],
        "hugepages": 3,
    }
    assert rest == "to stderr: ü\r\n\ttab, no newline at the end"
    assert "message of the kernel" in result.console
    assert memory.read_bytes()[8192 : 8192 + 5] == b"guest"
    assert not Path("/tmp/scratch").exists()


def qmp_plug(path: Path, bus: str) -> None:
    """Plug a device into a running VM."""
    plug = {"execute": "device_add", "arguments": {"driver": "virtio-rng-pci", "bus": bus}}
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.connect(str(path))
        replies = qmp.makefile("r")
        json.loads(replies.readline())  # the greeting
        for request in ({"execute": "qmp_capabilities"}, plug):
            qmp.sendall(json.dumps(request).encode())
            assert json.loads(replies.readline()) == {"return": {}}


def test_lines_arrive_while_the_guest_runs(tmp_path: Path) -> None:
    qmp = tmp_path / "qmp"
    # The guest waits for a device, which the host plugs after it has read the first line.
    wait = 'until [ "$(ls /sys/bus/pci/devices/0000:00:04.0/ | grep ^0000:)" ]; do sleep 0.1; done'
    config = VmConfig(
        ["sh", "-c", f"echo first; {wait}; echo; echo last"],
        qemu_args=["-device", "pcie-root-port,id=rp1,chassis=1,addr=4"],
        qmp=qmp,
    )
    with VM(config) as vm:
        lines = vm.lines()
        assert next(lines) == "first"
        assert isinstance(lines, Generator)
        lines.close()
        qmp_plug(qmp, "rp1")
        assert list(vm.lines()) == ["", "last"]
        result = vm.wait()
        assert vm.pid is not None
        assert not is_running(vm.pid)
    assert (result.output, result.status) == ("first\n\nlast\n", 0)
    assert vm.wait() is result
    assert not qmp.exists()


def test_timeout_raises_stalled_and_ends_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    vm = VM(VmConfig(["sleep", "100"], timeout=1))
    vm.start()
    pid = vm.pid
    assert pid is not None
    assert is_running(pid)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(Stalled, match="sleep 100"):
        vm.wait()
    assert not is_running(pid)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Closed):
        vm.wait()
    vm.close()


def test_exception_in_with_block_ends_qemu() -> None:
    vm = VM(VmConfig(["sleep", "100"]))
    with pytest.raises(KeyboardInterrupt), vm:
        raise KeyboardInterrupt
    assert vm.pid is not None
    assert not is_running(vm.pid)


def test_sigkill_of_owner_ends_qemu(tmp_path: Path) -> None:
    program = """
import time
from ivshmem.vm import VM, VmConfig
with VM(VmConfig(["sleep", "100"])) as vm:
    print(vm.pid, flush=True)
    time.sleep(100)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # pytest removes the files of the killed owner
    owner = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    deadline = time.monotonic() + 5
    while "qemu" not in Path(f"/proc/{pid}/cmdline").read_text():  # empty during execve
        assert time.monotonic() < deadline
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    deadline = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < deadline, f"QEMU {pid} outlived its owner"
        time.sleep(0.01)


def test_kernel_panic_of_guest_is_an_error_with_both_logs() -> None:
    command = "echo about to die; echo c >/proc/sysrq-trigger; sleep 100"
    with pytest.raises(EalError, match=r"(?s)Kernel panic.*about to die") as caught:
        run(["sh", "-c", command])
    assert type(caught.value) is EalError


def test_error_contains_stderr_of_qemu() -> None:
    with pytest.raises(EalError, match="'no-such-device' is not a valid device model name"):
        run(["true"], qemu_args=["-device", "no-such-device"])
