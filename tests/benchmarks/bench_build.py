# SPDX-License-Identifier: BSD-3-Clause
"""Compile the benchmark program: the C core and DPDK's headers, with the same flags."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORE = [ROOT / "native" / "src" / name for name in ("ring.c", "mempool.c", "mempool_debug.c", "crc32c.c")]
# DPDK loads the ring driver of its mempool at run time, so the linker sees no reference to it.
POOL_DRIVER = ["-Wl,--no-as-needed", "-lrte_mempool_ring"]
DIRECTORY = ROOT / "build" / "bench"


class Missing(Exception):
    """A program or library that the benchmark requires is not installed."""


def pkg_config(*arguments: str) -> list[str]:
    if shutil.which("pkg-config") is None:
        raise Missing("pkg-config must be installed; on Debian: apt-get install pkg-config")
    done = subprocess.run(["pkg-config", *arguments, "libdpdk"], capture_output=True, text=True)
    if done.returncode:
        raise Missing("DPDK's headers must be installed; on Debian: apt-get install libdpdk-dev")
    return shlex.split(done.stdout)


def inputs() -> list[Path]:
    headers = [*HERE.glob("*.h"), *(ROOT / "native" / "include").rglob("*.h")]
    return sorted([*HERE.glob("*.c"), *CORE, *headers])


def state(commands: list[list[str]]) -> str:
    """Return a hash of the commands and of the contents of all inputs."""
    digest = hashlib.sha256(repr(commands).encode())
    for path in inputs():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build() -> Path:
    """Compile the program if a source, a header or a flag has changed, and return its path."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    include = f"-I{ROOT / 'native' / 'include'}"
    flags = ["-std=gnu11", "-O3", "-Wall", "-Wextra", *pkg_config("--cflags"), include]
    sources = [path for path in inputs() if path.suffix == ".c"]
    objects = [DIRECTORY / f"{path.stem}.o" for path in sources]
    program, stamp = DIRECTORY / "bench", DIRECTORY / "state"
    commands = [
        [*compiler, *flags, "-c", str(source), "-o", str(target)]
        for source, target in zip(sources, objects, strict=True)
    ]
    link = [*compiler, "-o", str(program), *map(str, objects), *pkg_config("--libs"), *POOL_DRIVER, "-pthread"]
    commands.append(link)
    current = state(commands)
    if program.exists() and stamp.exists() and stamp.read_text() == current:
        return program
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for command in commands:
        subprocess.run(command, check=True)
    stamp.write_text(current)
    return program
