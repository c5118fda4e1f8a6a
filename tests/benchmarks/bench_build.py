# SPDX-License-Identifier: BSD-3-Clause
"""Compiles the benchmark program: our core and DPDK's headers, all with the same flags."""

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
# The ring behind DPDK's mempool is a driver, which nothing refers to by name.
POOL_DRIVER = ["-Wl,--no-as-needed", "-lrte_mempool_ring"]
DIRECTORY = ROOT / "build" / "bench"


class Missing(Exception):
    """Something that the benchmark needs is not on this machine."""


def pkg_config(*arguments: str) -> list[str]:
    if shutil.which("pkg-config") is None:
        raise Missing("pkg-config is missing; on Debian: apt-get install pkg-config")
    done = subprocess.run(["pkg-config", *arguments, "libdpdk"], capture_output=True, text=True)
    if done.returncode:
        raise Missing("DPDK's headers are missing; on Debian: apt-get install libdpdk-dev")
    return shlex.split(done.stdout)


def inputs() -> list[Path]:
    headers = [*HERE.glob("*.h"), *(ROOT / "native" / "include").glob("*.h")]
    return sorted([*HERE.glob("*.c"), *CORE, *headers])


def state(commands: list[list[str]]) -> str:
    digest = hashlib.sha256(repr(commands).encode())
    for path in inputs():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build() -> Path:
    """Returns the program, which is compiled only if a source, a header or a flag has changed."""
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
    wanted = state(commands)
    if program.exists() and stamp.exists() and stamp.read_text() == wanted:
        return program
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for command in commands:
        subprocess.run(command, check=True)
    stamp.write_text(wanted)
    return program
