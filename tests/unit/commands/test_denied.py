# SPDX-License-Identifier: BSD-3-Clause
"""The command `ivshmem` without permissions: status 1, and one line with the path and the remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ivshmem.cli import cli

HOST = """
import sys, eal, ivshmem
made = eal.init(file_prefix=sys.argv[1], no_huge=True)
ivshmem.metadata_create("vm0").add_memzone(eal.memzone_reserve("zone", 64))
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def host(peer: Callable[..., Any], prefix: str) -> Iterator[Callable[[], Any]]:
    """Return `host()`: start a process that has metadata "vm0"."""

    def start() -> Any:
        process = peer(HOST)
        process.hear()
        return process

    yield start
    for path in Path("/dev/shm").glob(f"ivshmem.*.{prefix}.*"):
        path.unlink()


def error_of(*words: str) -> str:
    """Run a command, check that it fails with one line on stderr and empty stdout, and return that line."""
    done = CliRunner().invoke(cli, words, prog_name="ivshmem", catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (1, ""), done
    (line,) = done.stderr.splitlines()
    return line.removeprefix("Error: ")


FEW = [["ls"], ["cmdline", "vm0"], ["clean", "--yes"]]
ALL = [
    ["ls"],
    ["ls", "--json"],
    ["dump", "vm0"],
    ["cmdline", "vm0"],
    ["clean", "--yes"],
    ["emulate", "vm0", "--", "true"],
]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_runtime_directory_writable_by_others_is_refused(runtime_dir: Path, words: list[str]) -> None:
    runtime_dir.chmod(0o777)
    error = (
        f"{runtime_dir} must not be writable by other users: run chmod go-w {runtime_dir}, "
        "or set EAL_RUNTIME_DIR to another directory"
    )
    assert error_of(*words) == error


@pytest.mark.root
@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_runtime_directory_of_another_user_is_refused(
    host: Callable[[], Any], runtime_dir: Path, words: list[str]
) -> None:
    host().crash()
    os.chown(runtime_dir, 65534, 65534)
    error = f"{runtime_dir} must belong to user 0, not to user 65534: set EAL_RUNTIME_DIR to another directory"
    assert error_of(*words) == error


# The interpreter may be in a directory private to root: load all modules before changing the user.
AS_NOBODY = """
import importlib, os, sys
for name in "inspect.prefixes metadata.dump vmm.qemu vmm.device emulate.runner demo.host cli metadata.metadata".split():
    importlib.import_module("ivshmem." + name)
import eal.lifecycle.eal, json, rich.console, rich.progress, rich.table, rich.text
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.argv[0] = "ivshmem"
importlib.import_module("ivshmem.cli").main()
"""


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", AS_NOBODY, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def reachable(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory whose parents every user may search, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="ivshmem-test-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("EAL_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.mark.root
@pytest.mark.parametrize("words", [*ALL, ["demo", "--messages", "10"]], ids=" ".join)
def test_inaccessible_runtime_directory_is_refused(
    host: Callable[[], Any], runtime_dir: Path, words: list[str]
) -> None:
    host()
    run = as_nobody(*words)
    assert (run.returncode, run.stdout) == (1, "")
    error = f"Error: cannot (read|create) {runtime_dir}: Permission denied; set EAL_RUNTIME_DIR to another directory\n"
    assert re.fullmatch(error, run.stderr), run.stderr


@pytest.mark.root
@pytest.mark.parametrize("words", FEW, ids=" ".join)
def test_runtime_directory_of_root_is_refused_for_another_user(
    host: Callable[[], Any], reachable: Path, words: list[str]
) -> None:
    host()
    run = as_nobody(*words)
    error = f"Error: {reachable} must belong to user 65534, not to user 0: set EAL_RUNTIME_DIR to another directory\n"
    assert (run.returncode, run.stdout, run.stderr) == (1, "", error)


@pytest.mark.root
@pytest.mark.parametrize("words", FEW, ids=" ".join)
def test_files_of_another_user_are_an_error_in_one_line(
    host: Callable[[], Any], reachable: Path, words: list[str]
) -> None:
    """Files that root created in the runtime directory of a user."""
    host().crash()
    os.chown(reachable, 65534, 65534)
    run = as_nobody(*words)
    assert (run.returncode, run.stdout) == (1, "")
    assert re.fullmatch("Error: .*Permission denied.*\n", run.stderr), run.stderr


def test_runtime_directory_that_cannot_be_created_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(tmp_path / "file" / "run"))
    error = error_of("demo", "--messages", "10")
    assert error == (f"cannot create {tmp_path}/file/run: Not a directory; set EAL_RUNTIME_DIR to another directory")
