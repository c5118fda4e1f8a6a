# SPDX-License-Identifier: BSD-3-Clause
"""The guest image: a stock kernel and a tiny initramfs, made once and kept in a private cache.

The guest has no disk. Its init mounts the host's root read-only by 9p and runs one command in it, so a guest
has the host's own Python and this project's own files. How init and the host speak stands in `ivshmem.vm.vm`.
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
KERNEL_PACKAGE = "linux-image-amd64"  # the generic kernel: the cloud one has no 9p
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "qemu_fw_cfg")
PACKAGES = {  # program -> the Debian package that has it
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "depmod": "kmod",
    "cpio": "cpio",
    "setpriv": "util-linux",
}

INIT = r"""#!/bin/busybox sh
# PID 1 of the guest: mounts the host's root, runs one job in it, reports the status, powers off.
/bin/busybox mount -t proc proc /proc  # every other applet finds itself through /proc/self/exe
die() { echo "init: $*"; poweroff -f; }
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev || die "no /dev"
for module in /modules/*; do insmod "$module" || die "cannot load $module"; done

mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose hostroot /host ||
    die "cannot mount the host's root"

# The host's files in /tmp stay visible (scripts and environments live there), writes go to memory.
mount -t tmpfs tmpfs /scratch
for dir in /tmp /var/tmp; do
    [ -d /host$dir ] || continue
    mkdir -p /scratch$dir/upper /scratch$dir/work
    mount -t overlay -o lowerdir=/host$dir,upperdir=/scratch$dir/upper,workdir=/scratch$dir/work \
        overlay /host$dir || die "cannot make $dir writable"
    chmod 1777 /host$dir
done
# Nothing of the host's state is in these: a guest must not take the host's runtime files for its own.
mount -t tmpfs tmpfs /host/run
mkdir -p /dev/shm /dev/pts /dev/hugepages
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t debugfs debugfs /sys/kernel/debug
for dir in /proc /sys /dev; do mount --rbind $dir /host$dir || die "cannot bind $dir"; done
ip link set lo up

cat /sys/firmware/qemu_fw_cfg/by_name/opt/ivshmem/job/raw >/job || die "no job"
. /job  # sets $token, and the words of the command as $1, $2, ...
stty -F /dev/ttyS1 raw -echo
"$@" </dev/null >/dev/ttyS1 2>&1
echo "$token $?" >/dev/ttyS1
poweroff -f
"""


@dataclass(frozen=True)
class GuestImage:
    """What QEMU boots: `kernel` for -kernel and `initrd` for -initrd."""

    kernel: Path
    initrd: Path


def cache_dir() -> Path:
    """$IVSHMEM_CACHE, else ivshmem in $XDG_CACHE_HOME or ~/.cache; made private (0700) when it is missing."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("IVSHMEM_CACHE") or Path(home, "ivshmem")).absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def missing() -> list[str]:
    """What this machine lacks to run a VM, one readable phrase each; empty when nothing is."""
    lacks = [f"program {name}" for name in PACKAGES if name != "busybox" and _which(name) is None]
    if not _is_static(BUSYBOX):
        lacks.append(f"a statically linked {BUSYBOX}")
    if platform.machine() != "x86_64":
        lacks.append(f"an x86_64 host (the guest runs the host's programs, and this is {platform.machine()})")
    if _cached_kernel() is None and not (_which("apt-get") and _which("dpkg")):
        lacks.append(f"a guest kernel in {cache_dir()}, and apt-get and dpkg to fetch one")
    return lacks


def install_command() -> str:
    """The command that installs the programs a VM needs on Debian and its relatives."""
    return "apt-get install " + " ".join(dict.fromkeys(p for p in PACKAGES.values() if p != "util-linux"))


def require() -> None:
    """Raise NotFound that names everything `missing()` lists, and the command that installs it."""
    if lacks := missing():
        raise NotFound(
            f"A virtual machine cannot run here, there is no {'; no '.join(lacks)}. "
            f"On Debian or Ubuntu, as root: {install_command()}"
        )


def prepare() -> GuestImage:
    """The image, from the cache where it is there, else made now (a download of 70 MB, about 10 s).

    Several processes may call this at once, and any may be killed: what is in the cache is whole. Raises
    NotFound when a program is missing, EalError when one fails.
    """
    found = _cached_image()
    if found is not None:
        return found
    require()
    with _building() as work:
        root = _cached_kernel() or _fetch_kernel(work)
        initrd = _initrd_path(root)
        if not initrd.exists():
            _build_initrd(root, work).rename(initrd)
        return GuestImage(kernel=root / "kernel", initrd=initrd)


# The cache: kernel-VERSION/ (an unpacked kernel package and `kernel`), initrd-VERSION-HASH.gz.


def _cached_kernel() -> Path | None:
    roots = sorted(cache_dir().glob("kernel-*"), key=lambda path: path.stat().st_mtime)
    return roots[-1] if roots else None


def _cached_image() -> GuestImage | None:
    root = _cached_kernel()
    if root is None or not _initrd_path(root).exists():
        return None
    return GuestImage(kernel=root / "kernel", initrd=_initrd_path(root))


def _initrd_path(root: Path) -> Path:
    # An edit of INIT or of MODULES must not meet an initramfs that was made before it.
    recipe = hashlib.sha256("\n".join((INIT, *MODULES)).encode()).hexdigest()[:12]
    return root.with_name(f"initrd-{_version(root)}-{recipe}.gz")


def _version(root: Path) -> str:
    return root.name.removeprefix("kernel-")


@contextmanager
def _building() -> Iterator[Path]:
    """A scratch directory beside the final names, for one builder at a time."""
    with open(cache_dir() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in cache_dir().glob(".new-*"):  # we hold the lock: whoever made it was killed
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=cache_dir()) as work:
            yield Path(work)


# The kernel


def _fetch_kernel(work: Path) -> Path:
    """Download and unpack the newest kernel package, without installing it; return its place in the cache."""
    package = _newest_kernel_package()
    log.info("fetching %s into %s", package, cache_dir())
    _run(["apt-get", "download", "-q", package], cwd=work)
    root = work / "root"
    _run(["dpkg", "-x", str(next(work.glob("*.deb"))), str(root)])
    if not (root / "lib").exists():  # newer packages have /usr/lib/modules only; kmod looks in /lib
        (root / "lib").symlink_to("usr/lib")
    version = next((root / "lib/modules").iterdir()).name
    _run(["depmod", "-b", str(root), version])
    (root / "kernel").write_bytes(_unpacked(root / f"boot/vmlinuz-{version}"))
    return root.rename(cache_dir() / f"kernel-{version}")


def _newest_kernel_package() -> str:
    for line in _run(["apt-cache", "depends", "--important", KERNEL_PACKAGE], fails_ok=True).splitlines():
        field, _, name = line.strip().partition(": ")
        if field == "Depends" and name.startswith("linux-image-"):
            return name
    raise NotFound(f"apt knows no package {KERNEL_PACKAGE} to take the guest's kernel from: run apt-get update")


def _unpacked(bzimage: Path) -> bytes:
    """The ELF kernel inside a bzImage: QEMU enters it directly, and emulation is spared 3 s of unpacking."""
    data = bzimage.read_bytes()
    start = data.find(b"\xfd7zXZ\0")
    if start < 0:
        return data  # packed in another way: it unpacks itself, slowly
    elf = lzma.LZMADecompressor().decompress(data[start:])
    return elf if elf.startswith(b"\x7fELF") else data


# The initramfs


def _build_initrd(root: Path, work: Path) -> Path:
    """Pack busybox, INIT and MODULES with all they depend on; return the finished file, still in `work`."""
    tree = work / "initrd"
    for name in ("bin", "dev", "host", "modules", "proc", "scratch", "sys"):
        (tree / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    for number, module in enumerate(_module_files(root)):  # numbered: init loads them in this order
        _copy_module(module, tree / "modules" / f"{number:02}-{module.name}")
    names = "\0".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    pack = ["cpio", "--create", "--format=newc", "--null", "--quiet", "--owner=0:0"]
    archive = subprocess.run(pack, cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
    initrd = work / "initrd.gz"
    initrd.write_bytes(gzip.compress(archive, mtime=0))
    return initrd


def _module_files(root: Path) -> list[Path]:
    """The files of MODULES and what they need, each once, in the order they must be loaded."""
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


# Programs


def _which(name: str) -> str | None:
    # A user's PATH often lacks sbin, where modprobe and depmod are.
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))


def _is_static(program: Path) -> bool:
    try:
        with open(program, "rb") as file:
            return b"/ld-linux" not in file.read(4096)  # the dynamic linker's name, in PT_INTERP
    except OSError:
        return False


def _run(command: Sequence[str], *, cwd: Path | None = None, fails_ok: bool = False) -> str:
    """Run a helper program in the C locale; return what it printed, or raise EalError with its complaint."""
    program = _which(command[0])
    if program is None:
        raise NotFound(f"program {command[0]} is missing, which makes the guest image")
    done = subprocess.run(
        [program, *command[1:]],
        cwd=cwd,
        env=os.environ | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode and not fails_ok:
        raise EalError(f"making the guest image: `{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
