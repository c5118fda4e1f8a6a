# SPDX-License-Identifier: BSD-3-Clause
"""Command line of QEMU and job script of the guest, as pure functions of a VmConfig."""

from __future__ import annotations

import shlex
from pathlib import Path

from ivshmem.vm.config import VmConfig
from ivshmem.vm.image import GuestImage

ACCELERATORS = {"tcg": "tcg,thread=multi", "kvm": "kvm"}  # name -> QEMU's -accel
HOST_ROOT_SLOT = "1e"  # of pcie.0; high, because users place devices from slot 1 upwards
GUEST_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",  # stdout is a serial port; programs must not print colours
    "PYTHONDONTWRITEBYTECODE": "1",
}


def qemu_command(config: VmConfig, image: GuestImage, accel: str, folder: Path) -> list[str]:
    """Return QEMU's command line. `folder` has the file `job`; QEMU writes the files `console` and `output` there."""
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-display", "none"]
    command += ["-machine", config.machine]
    command += ["-accel", ACCELERATORS[accel]]
    command += ["-cpu", "max"]
    command += ["-smp", str(config.smp)]
    command += ["-m", f"{config.memory}M"]
    command += ["-kernel", str(image.kernel)]
    command += ["-initrd", str(image.initrd)]
    # mitigations=off: the guest has no secrets to protect, and Python starts 25 % faster under TCG.
    kernel_args = ["console=ttyS0", "quiet", "panic=-1", "mitigations=off", *config.kernel_args]
    command += ["-append", " ".join(kernel_args)]
    command += ["-fw_cfg", f"name=opt/ivshmem/job,file={_escape(folder / 'job')}"]
    for port in ("console", "output"):  # ttyS0, ttyS1
        command += ["-chardev", f"file,id=vm-{port},path={_escape(folder / port)}"]
        command += ["-serial", f"chardev:vm-{port}"]
    command += ["-fsdev", "local,id=vm-root,path=/,security_model=none,readonly=on,multidevs=remap"]
    command += ["-device", f"virtio-9p-pci,fsdev=vm-root,mount_tag=hostroot,addr={HOST_ROOT_SLOT}"]
    if config.qmp is not None:
        command += ["-qmp", f"unix:{_escape(config.qmp)},server=on,wait=off"]
    return [*command, *config.qemu_args]


def job_script(config: VmConfig, token: str) -> str:
    """Return the script that the guest's init sources: it sets $token and the command as positional parameters."""
    env = [f"{name}={value}" for name, value in {**GUEST_ENV, **config.env}.items()]
    chroot = ["chroot", "/host", "/bin/sh", "-c", 'cd /tmp && exec "$@"', "sh"]
    return f"token={token}\nset -- {shlex.join(['env', '-i', *env, *chroot, *config.command])}\n"


def _escape(path: Path) -> str:
    return str(path.absolute()).replace(",", ",,")  # a single comma separates QEMU's options
