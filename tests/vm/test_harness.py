# SPDX-License-Identifier: BSD-3-Clause
"""The VM harness: input and output of a guest, and QEMU's end in all cases."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from eal.errors import Closed, EalError, Invalid, NotFound, Stalled
from ivshmem.vm import image as guest_image
from ivshmem.vm.image import GuestImage
from ivshmem.vm.vm import VM, VmConfig, accelerator, qemu_command, run

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

Path("/dev/kmsg").write_text("<0>noise of the kernel\\n")
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
    """Return whether a process exists and is not a zombie (PID 1 may not reap an orphan)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_python_script_runs_in_the_guest_with_a_device(tmp_path: Path) -> None:
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
    assert "noise of the kernel" in result.console
    assert memory.read_bytes()[8192 : 8192 + 5] == b"guest"
    assert not Path("/tmp/scratch").exists()


def qmp_plug(path: Path, bus: str) -> None:
    """Plug any device into a running VM."""
    plug = {"execute": "device_add", "arguments": {"driver": "virtio-rng-pci", "bus": bus}}
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.connect(str(path))
        replies = qmp.makefile("r")
        json.loads(replies.readline())  # the greeting
        for request in ({"execute": "qmp_capabilities"}, plug):
            qmp.sendall(json.dumps(request).encode())
            assert json.loads(replies.readline()) == {"return": {}}


def test_lines_are_read_while_the_guest_runs(tmp_path: Path) -> None:
    qmp = tmp_path / "qmp"
    # The guest continues after a device is plugged, which the host does after it has read the first line.
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


def test_exception_in_the_block_ends_qemu() -> None:
    vm = VM(VmConfig(["sleep", "100"]))
    with pytest.raises(KeyboardInterrupt), vm:
        raise KeyboardInterrupt
    assert vm.pid is not None
    assert not is_running(vm.pid)


def test_sigkill_of_the_python_process_ends_qemu(tmp_path: Path) -> None:
    program = """
import time
from ivshmem.vm.vm import VM, VmConfig
with VM(VmConfig(["sleep", "100"])) as vm:
    print(vm.pid, flush=True)
    time.sleep(100)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # no process removes the files of a killed VM; pytest does
    owner = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert "qemu" in Path(f"/proc/{pid}/cmdline").read_text()
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    deadline = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < deadline, f"QEMU {pid} outlived its owner"
        time.sleep(0.01)


def test_guest_panic_raises_an_error_with_the_console_text() -> None:
    command = "echo about to die; echo c >/proc/sysrq-trigger; sleep 100"
    with pytest.raises(EalError, match=r"(?s)Kernel panic.*about to die") as caught:
        run(["sh", "-c", command])
    assert type(caught.value) is EalError


def test_invalid_option_raises_an_error_with_qemus_message() -> None:
    with pytest.raises(EalError, match="'no-such-device' is not a valid device model name"):
        run(["true"], qemu_args=["-device", "no-such-device"])


def test_one_cpu_under_tcg_raises_invalid() -> None:
    vm = VM(VmConfig(["true"], smp=1, accel="tcg"))
    with pytest.raises(Invalid, match="atomicity"):
        vm.start()
    assert vm.pid is None


@pytest.mark.parametrize(
    "bad",
    [
        {"command": []},
        {"command": "ls -l"},
        {"command": ["a\0b"]},
        {"command": ["true"], "env": {"A=B": "C"}},
        {"command": ["true"], "smp": 0},
        {"command": ["true"], "memory": 1},
    ],
)
def test_invalid_config_raises_invalid(bad: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        VmConfig(**bad)


def test_vm_that_was_not_started_raises_closed() -> None:
    with pytest.raises(Closed, match="not started"):
        VM(VmConfig(["true"])).wait()


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert guest_image.missing() == []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IVSHMEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(guest_image, "BUSYBOX", tmp_path / "busybox")
    vm = VM(VmConfig(["true"]))
    with pytest.raises(NotFound) as caught:
        vm.start()
    for what in (
        "program qemu-system-x86_64",
        "program cpio",
        "static",
        "kernel",
        "apt-get install qemu-system-x86 ",
    ):
        assert what in str(caught.value)


def test_command_line_is_a_list_of_words(tmp_path: Path) -> None:
    image = GuestImage(kernel=Path("/k"), initrd=Path("/i"))
    config = VmConfig(["true"], smp=4, memory=256, qemu_args=["-device", "edu"], qmp=Path("/q,q"), machine="pc")
    command = qemu_command(config, image, "kvm", Path("/folder"))
    options = dict(itertools.pairwise(command))
    assert command[0] == "qemu-system-x86_64"
    assert command[-2:] == ["-device", "edu"]
    assert (options["-machine"], options["-accel"]) == ("pc", "kvm")
    assert (options["-smp"], options["-m"]) == ("4", "256M")
    assert options["-qmp"] == "unix:/q,,q,server=on,wait=off"
    assert (options["-kernel"], options["-initrd"]) == ("/k", "/i")
    assert "-accel tcg,thread=multi" in " ".join(qemu_command(config, image, "tcg", Path("/folder")))


def test_accelerator_is_given_or_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IVSHMEM_ACCEL", raising=False)
    assert accelerator("kvm") == "kvm"
    found = accelerator()
    started = time.monotonic()
    assert accelerator("auto") == found
    assert time.monotonic() - started < 0.5
    monkeypatch.setenv("IVSHMEM_ACCEL", "kvm")
    assert (accelerator(), accelerator("tcg")) == ("kvm", "tcg")
    monkeypatch.setenv("IVSHMEM_ACCEL", "xen")
    with pytest.raises(Invalid, match="xen"):
        accelerator()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache directory for the test that contains only the kernel (a link to the real one)."""
    kernel = guest_image.prepare().kernel.parent
    directory = tmp_path / "cache"
    directory.mkdir()
    (directory / kernel.name).symlink_to(kernel)
    monkeypatch.setenv("IVSHMEM_CACHE", str(directory))
    return directory


def test_initramfs_is_rebuilt_when_init_changes_and_only_then(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = guest_image.prepare()
    made = first.initrd.stat().st_mtime_ns
    assert guest_image.prepare() == first
    assert first.initrd.stat().st_mtime_ns == made
    monkeypatch.setattr(guest_image, "INIT", guest_image.INIT + "# edited\n")
    second = guest_image.prepare()
    assert second.initrd != first.initrd
    assert second.initrd.parent == cache
    assert second.initrd.read_bytes() != first.initrd.read_bytes()


def test_interrupted_build_leaves_no_partial_image(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(cache.iterdir())
    (cache / ".new-killed").mkdir()  # left by a builder that was killed by SIGKILL
    with monkeypatch.context() as patch:
        patch.setattr(guest_image, "_copy_module", interrupt)
        with pytest.raises(KeyboardInterrupt):
            guest_image.prepare()
    assert set(cache.iterdir()) - before == {cache / "lock"}
    assert guest_image.prepare().initrd.exists()


def test_two_concurrent_builders_produce_one_image(cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(lambda _: guest_image.prepare(), range(2)))
    assert images[0] == images[1]
    assert {path.name for path in cache.iterdir()} >= {images[0].initrd.name, "lock"}
    assert not list(cache.glob(".new-*"))
