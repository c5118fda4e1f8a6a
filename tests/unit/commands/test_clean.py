# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem clean`: list the files of dead prefixes and remove them after a confirmation; keep all other files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

import eal
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.cli import cli

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))

HOST = """
import sys, eal, ivshmem
made = eal.init(file_prefix=sys.argv[1] + sys.argv[2], no_huge=True)
ivshmem.metadata_create("of" + sys.argv[2]).add_memzone(eal.memzone_reserve("zone", 64))
print("ready", flush=True)
sys.stdin.readline()
made.detach() if sys.argv[3:] == ["keep"] else made.close()
"""


def clean(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(cli, ["clean", *words], input=answer, prog_name="ivshmem", catch_exceptions=False)


@pytest.fixture
def host(peer: Callable[..., Any], prefix: str) -> Iterator[Callable[..., Any]]:
    """Return `host("x")`: start a process of file_prefix PREFIX + "x" with a memzone in metadata "ofx"."""

    def start(ending: str, *how: str) -> Any:
        process = peer(HOST, ending, *how)
        process.hear()
        return process

    yield start
    for path in Path("/dev/shm").glob(f"ivshmem.*.{prefix}*"):
        path.unlink()


def files_of(runtime_dir: Path, prefix: str) -> set[str]:
    """Return the data files of a prefix, its registry, its lock file and its links to metadata files."""
    home = runtime_dir / prefix
    inside = [path for path in home.rglob("*") if not path.is_dir() or path.is_symlink()]
    return {str(path) for path in [*Path("/dev/shm").glob(f"ivshmem.*.{prefix}.*"), *inside]}


@pytest.fixture
def dead(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> set[str]:
    """Create a dead prefix and return its files."""
    host("dead").crash()
    files = files_of(runtime_dir, f"{prefix}dead")
    assert len(files) == 5  # segment, metadata file, link, registry, lock file
    return files


def listed(text: str) -> set[str]:
    """Return the files that a listing names."""
    return {line.strip() for line in text.splitlines() if line.startswith("  ")}


@pytest.mark.parametrize("words", [[], ["--yes"], ["--dry-run"], ["-y"], ["-n"]])
def test_clean_without_dead_prefix(runtime_dir: Path, words: list[str]) -> None:
    done = clean(*words)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "nothing to clean\n", "")


def test_clean_json_without_dead_prefix_is_an_empty_list(runtime_dir: Path) -> None:
    done = clean("--json")
    assert (done.exit_code, json.loads(done.stdout), done.stderr) == (0, [], "")


@pytest.mark.parametrize("answer", ["y\n", "yes\n", "Y\n"])
def test_confirmed_clean_lists_and_removes_files(dead: set[str], runtime_dir: Path, prefix: str, answer: str) -> None:
    done = clean(answer=answer)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == f"{prefix}dead (dead):"
    assert listed(done.stdout) == dead
    assert done.stderr.startswith("Remove them? [y/N]: ")
    assert files_of(runtime_dir, f"{prefix}dead") == set()
    assert list(runtime_dir.iterdir()) == []
    assert clean("--yes").stdout == "nothing to clean\n"


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "no\n"])
def test_declined_clean_removes_nothing(dead: set[str], runtime_dir: Path, prefix: str, answer: str) -> None:
    done = clean(answer=answer)
    assert done.exit_code == 1
    assert listed(done.stdout) == dead
    assert done.stderr.endswith("Aborted!\n")
    assert files_of(runtime_dir, f"{prefix}dead") == dead


def test_clean_lists_files_before_the_prompt(dead: set[str]) -> None:
    """In a separate process, whose stdin stays open without an answer."""
    pipe = subprocess.PIPE
    with subprocess.Popen([IVSHMEM, "clean"], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        lines = {process.stdout.readline().strip() for _ in range(1 + len(dead))}
        assert dead < lines
        process.terminate()


@pytest.mark.parametrize("words", [["--yes"], ["-y"], ["--yes", "--json"]])
def test_clean_with_yes_does_not_prompt(dead: set[str], runtime_dir: Path, prefix: str, words: list[str]) -> None:
    done = clean(*words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert files_of(runtime_dir, f"{prefix}dead") == set()


@pytest.mark.parametrize("words", [["--dry-run"], ["-n"], ["--dry-run", "--yes"]])
def test_clean_with_dry_run_removes_nothing(dead: set[str], runtime_dir: Path, prefix: str, words: list[str]) -> None:
    done = clean(*words)
    assert (done.exit_code, listed(done.stdout), done.stderr) == (0, dead, "")
    assert files_of(runtime_dir, f"{prefix}dead") == dead


def test_clean_json_lists_the_same_files(dead: set[str], runtime_dir: Path, prefix: str) -> None:
    done = clean("--json", "--dry-run")
    (piece,) = json.loads(done.stdout)
    assert (piece["file_prefix"], set(piece["files"])) == (f"{prefix}dead", dead)
    assert files_of(runtime_dir, f"{prefix}dead") == dead
    done = clean("--json", answer="n\n")  # the prompt goes to stderr, so stdout is only JSON
    assert done.exit_code == 1
    assert json.loads(done.stdout) == [piece]
    assert files_of(runtime_dir, f"{prefix}dead") == dead
    done = clean("--json", "--yes")
    assert json.loads(done.stdout) == [piece]
    assert files_of(runtime_dir, f"{prefix}dead") == set()


def test_clean_keeps_files_of_live_and_kept_prefixes(
    dead: set[str], host: Callable[..., Any], runtime_dir: Path, prefix: str
) -> None:
    host("kept", "keep").end()
    alive = host("alive")
    before = {ending: files_of(runtime_dir, prefix + ending) for ending in ("kept", "alive")}
    done = clean("--yes")
    assert listed(done.stdout) == dead
    assert {ending: files_of(runtime_dir, prefix + ending) for ending in ("kept", "alive")} == before
    assert clean("--yes").stdout == "nothing to clean\n"
    alive.end()
    assert files_of(runtime_dir, f"{prefix}alive") == set()


def test_clean_keeps_files_of_calling_process(dead: set[str], primary: eal.Eal, runtime_dir: Path) -> None:
    eal.memzone_reserve("zone", 64)
    mine = files_of(runtime_dir, primary.file_prefix) - dead
    assert clean("--yes").exit_code == 0
    assert files_of(runtime_dir, primary.file_prefix) == mine


def test_clean_keeps_files_of_dead_primary_with_live_secondary(
    host: Callable[..., Any], peer: Callable[..., Any], runtime_dir: Path, prefix: str
) -> None:
    process = host("x")
    secondary = peer(
        """
        import sys, eal
        with eal.init(file_prefix=sys.argv[1] + "x", proc_type="secondary"):
            print("in", flush=True)
            sys.stdin.readline()
        """
    )
    secondary.hear()
    process.crash()
    files = files_of(runtime_dir, f"{prefix}x")
    assert clean("--yes").stdout == "nothing to clean\n"
    assert files_of(runtime_dir, f"{prefix}x") == files
    secondary.end()
    assert listed(clean("--yes").stdout) == files
    assert files_of(runtime_dir, f"{prefix}x") == set()


def test_clean_with_file_prefix_removes_only_its_files(
    host: Callable[..., Any], runtime_dir: Path, prefix: str
) -> None:
    host("a").crash()
    host("b").crash()
    b = files_of(runtime_dir, f"{prefix}b")
    done = clean("--yes", "--file-prefix", f"{prefix}a")
    assert done.exit_code == 0
    assert files_of(runtime_dir, f"{prefix}a") == set()
    assert files_of(runtime_dir, f"{prefix}b") == b
    assert clean("--yes", "--file-prefix", "another").stdout == "nothing to clean\n"


def test_clean_removes_data_files_without_prefix_directory(dead: set[str], runtime_dir: Path, prefix: str) -> None:
    """As after a reboot of a container that kept /dev/shm, or after rm -r of the runtime directory."""
    import shutil

    shutil.rmtree(runtime_dir / f"{prefix}dead")
    orphans = {path for path in dead if path.startswith("/dev/shm/")}
    done = clean("--yes")
    assert done.stdout.splitlines()[0] == f"{prefix}dead (dead):"
    assert listed(done.stdout) == orphans
    assert files_of(runtime_dir, f"{prefix}dead") == set()
    assert clean("--yes").stdout == "nothing to clean\n"


def test_clean_keeps_foreign_files(dead: set[str], runtime_dir: Path, prefix: str) -> None:
    directory = PrefixDir(runtime_dir / "elsewhere", f"{prefix}dead")
    foreign = Path("/dev/shm") / directory.file_name(uuid4().hex, "seg")
    foreign.touch()
    (runtime_dir / "notes").mkdir()
    (runtime_dir / "notes/draft").touch()
    assert listed(clean("--yes").stdout) == dead
    assert foreign.exists()
    assert (runtime_dir / "notes/draft").exists()


def test_clean_keeps_prefix_that_starts_during_the_prompt(
    dead: set[str], host: Callable[..., Any], runtime_dir: Path, prefix: str
) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([IVSHMEM, "clean"], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        for _ in range(1 + len(dead)):
            process.stdout.readline()
        alive = host("dead")
        files = files_of(runtime_dir, f"{prefix}dead")
        out, errors = process.communicate("y\n", timeout=30)
    assert process.returncode == 1
    assert f"file_prefix '{prefix}dead' is in use by pid {alive.pid}; nothing was removed" in errors
    assert (out, "Traceback" in errors) == ("", False)
    assert files_of(runtime_dir, f"{prefix}dead") == files
    alive.end()


def test_cleaned_prefix_can_start_again(dead: set[str], prefix: str) -> None:
    clean("--yes")
    with eal.init(file_prefix=f"{prefix}dead", proc_type="primary", no_huge=True):
        eal.memzone_reserve("zone", 64)
