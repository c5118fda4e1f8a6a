# SPDX-License-Identifier: BSD-3-Clause
"""Compile and load loops.c, the C side of the Python benchmarks."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCE = HERE / "loops.c"
LIBRARY = ROOT / "build" / "bench" / "loops.so"


def build() -> None:
    """Compile loops.c with the compiler and the optimisation level of the C benchmark."""
    LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    include = f"-I{ROOT / 'native' / 'include'}"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = ["-std=gnu11", "-O3", "-Wall", "-Wextra", "-shared", "-fPIC", include]
    subprocess.run([*compiler, *flags, str(SOURCE), "-o", str(LIBRARY)], check=True)


def load() -> ctypes.CDLL:
    """Return the compiled library. Its functions use 64-bit integers and run without the GIL."""
    library = ctypes.CDLL(str(LIBRARY))
    u64 = ctypes.c_uint64
    library.loops_forward.argtypes = [u64, u64, ctypes.c_void_p, u64, u64, ctypes.c_uint32, u64]
    for name in ("loops_ping_ring", "loops_pong_ring"):
        getattr(library, name).argtypes = [u64, u64, u64]
    for name in ("loops_ping_line", "loops_pong_line"):
        getattr(library, name).argtypes = [u64, u64]
    for name in ("forward", "ping_ring", "pong_ring", "ping_line", "pong_line"):
        getattr(library, f"loops_{name}").restype = u64
    return library
