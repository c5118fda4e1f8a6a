# SPDX-License-Identifier: BSD-3-Clause
"""Guest image: a stock kernel and a small initramfs, built once and kept in a private cache.

The guest has no disk. Its init mounts the host's root read-only over 9p and runs one command in it, so the guest uses
the host's Python and this project's files. ivshmem.vm.vm describes the protocol between init and host.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import logging
import lzma
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eal.errors import EalError, NotFound

log = logging.getLogger(__name__)

BUSYBOX = Path("/bin/busybox")
KERNEL_PACKAGE = "linux-image-amd64"  # not the cloud kernel, which lacks 9p
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "qemu_fw_cfg")
PACKAGES = {  # program -> Debian package
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "depmod": "kmod",
    "cpio": "cpio",
    "setpriv": "util-linux",
}

INIT = r"""#!/bin/busybox sh
# PID 1 of the guest: mount the host's root, run one job in it, report the exit status, power off.
/bin/busybox mount -t proc proc /proc  # the other applets find busybox through /proc/self/exe
die() { echo "init: $*"; poweroff -f; }
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev || die "no /dev"
for module in /modules/*; do insmod "$module" || die "cannot load $module"; done

mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose hostroot /host ||
    die "cannot mount the host's root"

# Files of the host's /tmp are visible (scripts, virtual environments); writes go to guest memory.
mount -t tmpfs tmpfs /scratch
for dir in /tmp /var/tmp; do
    [ -d /host$dir ] || continue
    mkdir -p /scratch$dir/upper /scratch$dir/work
    mount -t overlay -o lowerdir=/host$dir,upperdir=/scratch$dir/upper,workdir=/scratch$dir/work \
        overlay /host$dir || die "cannot make $dir writable"
    chmod 1777 /host$dir
done
# Hide the host's /run: its runtime files must not be mistaken for those of the guest.
mount -t tmpfs tmpfs /host/run
mkdir -p /dev/shm /dev/pts /dev/hugepages
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t debugfs debugfs /sys/kernel/debug
for dir in /proc /sys /dev; do mount --rbind $dir /host$dir || die "cannot bind $dir"; done
ip link set lo up

cat /sys/firmware/qemu_fw_cfg/by_name/opt/ivshmem/job/raw >/job || die "no job"
. /job  # sets $token and the positional parameters
stty -F /dev/ttyS1 raw -echo
"$@" </dev/null >/dev/ttyS1 2>&1
echo "$token $?" >/dev/ttyS1
poweroff -f
"""


@dataclass(frozen=True)
class GuestImage:
    """Files for QEMU's options -kernel and -initrd."""

    kernel: Path
    initrd: Path


def cache_dir() -> Path:
    """Return $IVSHMEM_CACHE, or `ivshmem` in $XDG_CACHE_HOME or ~/.cache; create it (mode 0700) if it is missing."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("IVSHMEM_CACHE") or Path(home, "ivshmem")).absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def missing() -> list[str]:
    """Return one phrase for each program or file that a VM needs and this machine lacks."""
    lacks = [f"program {name}" for name in PACKAGES if name != "busybox" and _which(name) is None]
    if not _is_static(BUSYBOX):
        lacks.append(f"a statically linked {BUSYBOX}")
    if platform.machine() != "x86_64":
        lacks.append(f"an x86_64 host (the guest runs the host's programs; this machine is {platform.machine()})")
    if _cached_kernel() is None and not (_which("apt-get") and _which("dpkg")):
        lacks.append(f"a guest kernel in {cache_dir()}, and apt-get and dpkg to download one")
    return lacks


def install_command() -> str:
    """Return the command that installs all programs for a VM on Debian and its derivatives."""
    return "apt-get install " + " ".join(dict.fromkeys(p for p in PACKAGES.values() if p != "util-linux"))


def require() -> None:
    """Raise NotFound with everything that `missing()` returns and the command that installs it."""
    if lacks := missing():
        raise NotFound(
            f"cannot run a virtual machine, missing: {'; '.join(lacks)}. On Debian or Ubuntu, run as root: "
            f"{install_command()}"
        )


def prepare() -> GuestImage:
    """Return the image from the cache; build it if it is missing (a download of 70 MB, about 10 s).

    Several processes may call this at once, and each may be killed: the cache never contains incomplete files. Raises
    NotFound if a program is missing, EalError if one fails.
    """
    image = _cached_image()
    if image is not None:
        return image
    require()
    with _building() as work:
        root = _cached_kernel() or _fetch_kernel(work)
        initrd = _initrd_path(root)
        if not initrd.exists():
            _build_initrd(root, work).rename(initrd)
        return GuestImage(kernel=root / "kernel", initrd=initrd)


# Cache: kernel-VERSION/ (an unpacked kernel package and `kernel`), initrd-VERSION-HASH.gz.


def _cached_kernel() -> Path | None:
    roots = sorted(cache_dir().glob("kernel-*"), key=lambda path: path.stat().st_mtime)
    return roots[-1] if roots else None


def _cached_image() -> GuestImage | None:
    root = _cached_kernel()
    if root is None or not _initrd_path(root).exists():
        return None
    return GuestImage(kernel=root / "kernel", initrd=_initrd_path(root))


def _initrd_path(root: Path) -> Path:
    # The hash invalidates the initramfs when INIT or MODULES change.
    recipe = hashlib.sha256("\n".join((INIT, *MODULES)).encode()).hexdigest()[:12]
    return root.with_name(f"initrd-{_version(root)}-{recipe}.gz")


def _version(root: Path) -> str:
    return root.name.removeprefix("kernel-")


@contextmanager
def _building() -> Iterator[Path]:
    """Yield a temporary directory on the file system of the cache, for one builder at a time."""
    with open(cache_dir() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in cache_dir().glob(".new-*"):  # its builder was killed: this process holds the lock
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=cache_dir()) as work:
            yield Path(work)


# --- kernel ---------------------------------------------------------------------------------------------------


def _fetch_kernel(work: Path) -> Path:
    """Download and unpack the newest kernel package without installing it; return its directory in the cache."""
    package = _newest_kernel_package()
    log.info("downloading %s into %s", package, cache_dir())
    _run(["apt-get", "download", "-q", package], cwd=work)
    root = work / "root"
    _run(["dpkg", "-x", str(next(work.glob("*.deb"))), str(root)])
    if not (root / "lib").exists():  # newer packages have only /usr/lib/modules; kmod requires /lib
        (root / "lib").symlink_to("usr/lib")
    version = next((root / "lib/modules").iterdir()).name
    _run(["depmod", "-b", str(root), version])
    (root / "kernel").write_bytes(_unpack(root / f"boot/vmlinuz-{version}"))
    return root.rename(cache_dir() / f"kernel-{version}")


def _newest_kernel_package() -> str:
    for line in _run(["apt-cache", "depends", "--important", KERNEL_PACKAGE], fails_ok=True).splitlines():
        field, _, name = line.strip().partition(": ")
        if field == "Depends" and name.startswith("linux-image-"):
            return name
    raise NotFound(f"apt has no package {KERNEL_PACKAGE} (the guest's kernel): run `apt-get update`")


def _unpack(bzimage: Path) -> bytes:
    """Return the ELF kernel inside a bzImage. QEMU starts it directly, which saves 3 s of decompression under TCG."""
    data = bzimage.read_bytes()
    start = data.find(b"\xfd7zXZ\0")
    if start < 0:
        return data  # not xz: the guest decompresses it
    elf = lzma.LZMADecompressor().decompress(data[start:])
    return elf if elf.startswith(b"\x7fELF") else data


# --- initramfs ------------------------------------------------------------------------------------------------


def _build_initrd(root: Path, work: Path) -> Path:
    """Pack busybox, INIT, MODULES and their dependencies; return the file, which is in `work`."""
    tree = work / "initrd"
    for name in ("bin", "dev", "host", "modules", "proc", "scratch", "sys"):
        (tree / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    for number, module in enumerate(_module_files(root)):  # init loads them in the order of these numbers
        _copy_module(module, tree / "modules" / f"{number:02}-{module.name}")
    names = "\0".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    pack = ["cpio", "--create", "--format=newc", "--null", "--quiet", "--owner=0:0"]
    archive = subprocess.run(pack, cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
    initrd = work / "initrd.gz"
    initrd.write_bytes(gzip.compress(archive, mtime=0))
    return initrd


def _module_files(root: Path) -> list[Path]:
    """Return the files of MODULES and their dependencies without duplicates, in load order."""
    files: dict[Path, None] = {}
    for module in MODULES:
        shown = _run(["modprobe", "-S", _version(root), "-d", str(root), "--show-depends", module])
        for line in shown.splitlines():
            verb, _, path = line.strip().partition(" ")
            if verb == "insmod":  # "builtin NAME" needs no file
                files[Path(path.rstrip())] = None
    return list(files)


def _copy_module(source: Path, target: Path) -> None:
    if source.suffix == ".xz":
        target.with_suffix("").write_bytes(lzma.decompress(source.read_bytes()))
    else:
        shutil.copy(source, target)


# --- programs -------------------------------------------------------------------------------------------------


def _which(name: str) -> str | None:
    # The PATH of a user often lacks /usr/sbin, which contains modprobe and depmod.
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))


def _is_static(program: Path) -> bool:
    try:
        with open(program, "rb") as file:
            return b"/ld-linux" not in file.read(4096)  # the dynamic linker's name, in PT_INTERP
    except OSError:
        return False


def _run(command: Sequence[str], *, cwd: Path | None = None, fails_ok: bool = False) -> str:
    """Run a program in the C locale and return its stdout. Raises EalError with its stderr if it fails."""
    program = _which(command[0])
    if program is None:
        raise NotFound(f"program {command[0]} is missing; it is required to build the guest image")
    done = subprocess.run(
        [program, *command[1:]],
        cwd=cwd,
        env=os.environ | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode and not fails_ok:
        raise EalError(f"cannot build the guest image: `{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
