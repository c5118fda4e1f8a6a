# SPDX-License-Identifier: BSD-3-Clause
"""The C tests of native/tests: plain, under ThreadSanitizer, and under AddressSanitizer with UBSan.

Each variant has a build directory of its own under build/, in which only what changed is compiled again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = {"plain": "none", "tsan": "thread", "asan": "address,undefined"}

ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # meson, ninja and cffi-gen-src of this venv
    "TSAN_OPTIONS": "halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


def configure(directory: Path, variant: str) -> None:
    """Once; afterwards ninja sees to it that a meson.build that has changed is gone by."""
    if (directory / "build.ninja").exists():
        run("ninja", "-C", str(directory), "build.ninja")
        return
    options = [
        "-Dnative_tests=true",
        f"-Db_sanitize={SANITIZERS[variant]}",
        f"-Dbuildtype={'release' if variant == 'plain' else 'debugoptimized'}",
        "-Db_lundef=false",  # the sanitizers' symbols come with the program that loads the extension module
    ]
    run("meson", "setup", "--wipe" if directory.exists() else "--backend=ninja", str(directory), *options)


def programs(directory: Path) -> list[str]:
    """The targets of native/tests: eal._native is built elsewhere, and takes longer than all of them."""
    targets = json.loads(run("meson", "introspect", "--targets", str(directory)))
    return [target["name"] for target in targets if "/native/tests/" in target["defined_in"]]


@pytest.mark.parametrize("variant", SANITIZERS)
def test_native(variant: str) -> None:
    directory = ROOT / "build" / f"native-{variant}"
    configure(directory, variant)
    run("meson", "compile", "-C", str(directory), *programs(directory))
    run("meson", "test", "-C", str(directory), "--no-rebuild", "--print-errorlogs")
