# SPDX-License-Identifier: BSD-3-Clause
"""The command `ivshmem`: help, exit status, JSON, one-line errors, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import eal
import ivshmem
from ivshmem.cli import cli

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))

HOST = """
import os, sys, eal, ivshmem
made = eal.init(file_prefix=sys.argv[1], no_huge=True)
metadata = ivshmem.metadata_create(sys.argv[2])
metadata.add_memzone(eal.memzone_reserve("zone", 1000))
metadata.add_ring(eal.ring_create("ring", 8, group="rings"))
print(metadata.cmdline(), flush=True)
sys.stdin.readline()
made.detach() if sys.argv[3:] == ["keep"] else made.close()
"""


@dataclass
class Run:
    """Result of a command."""

    returncode: int
    stdout: str
    stderr: str


def run_process(*words: str, **how: Any) -> Run:
    """Run the installed command in a separate process."""
    run = subprocess.run([IVSHMEM, *words], capture_output=True, text=True, timeout=60, **how)
    return Run(run.returncode, run.stdout, run.stderr)


def run_here(*words: str) -> Run:
    """Run a command in this process, ten times faster."""
    result = CliRunner().invoke(cli, words, prog_name="ivshmem", catch_exceptions=False)
    return Run(result.exit_code, result.stdout, result.stderr)


def succeed(*words: str, run: Callable[..., Run] = run_here) -> str:
    """Run a command, check that it succeeds without output on stderr, and return its stdout."""
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def error_of(*words: str, status: int = 1, run: Callable[..., Run] = run_here) -> str:
    """Run a command, check that it fails with one line on stderr and empty stdout, and return that line."""
    done = run(*words)
    assert (done.returncode, done.stdout) == (status, ""), done
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()[-1:] if status == 2 else done.stderr.splitlines()  # status 2: after the usage
    assert line.startswith("Error: "), line
    return line.removeprefix("Error: ")


@pytest.fixture
def host(peer: Callable[..., Any], prefix: str) -> Iterator[Callable[..., Any]]:
    """Return `host("vm0")`: start a process with metadata of that name that lists a memzone and a ring."""

    def start(name: str, *how: str) -> Any:
        process = peer(HOST, name, *how)
        process.cmdline = process.hear()
        return process

    yield start
    for path in Path("/dev/shm").glob(f"ivshmem.*.{prefix}.*"):
        path.unlink()


# --- help ---------------------------------------------------------------------------------------------------

COMMANDS = sorted(cli.commands)


def test_group_has_the_documented_commands() -> None:
    assert {"ls", "dump", "cmdline", "emulate", "clean", "demo"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_command_has_one_valid_example(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for option in ("--help", "-h"):
        text = succeed(command, option)
        assert text.startswith(f"Usage: ivshmem {command} ")
        examples = re.findall(r"^  Example: (.*)$", text, re.MULTILINE)
        assert len(examples) == 1, text
        words = shlex.split(examples[0].replace('"', ""), comments=True)
        at = words.index("ivshmem") if "ivshmem" in words else words.index("$(ivshmem")
        assert words[at + 1] == command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text(command: str) -> None:
    for parameter in cli.commands[command].params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{command} {parameter.name}"


def test_help_lists_every_command() -> None:
    text = succeed("--help")
    assert succeed("-h") == text
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z]", text, re.MULTILINE), command
    assert "Exit status" in text


def test_version_is_that_of_the_distribution() -> None:
    import importlib.metadata

    assert succeed("--version", run=run_process).split()[-1] == importlib.metadata.version("ivshmem")


# --- completion ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_returns_matching_commands(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_IVSHMEM_COMPLETE", f"{shell}_source")
    script = succeed(run=run_process)
    assert f"_IVSHMEM_COMPLETE={shell}_complete" in script
    monkeypatch.setenv("_IVSHMEM_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", "ivshmem cm")
    monkeypatch.setenv("COMP_CWORD", "cm" if shell == "fish" else "1")  # fish gives the word itself
    assert "cmdline" in succeed(run=run_process)
    assert "clean" not in succeed(run=run_process)


# --- exit statuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["no-such-command"], "No such command 'no-such-command'."),
        (["ls", "surplus"], "Got unexpected extra argument (surplus)"),
        (["ls", "--no-such-option"], "No such option '--no-such-option'."),
        (["dump"], "Missing argument 'NAME'."),
        (["cmdline"], "Missing argument 'NAME...'."),
        (["dump", "a", "b"], "Got unexpected extra argument (b)"),
        (["ls", "--file-prefix"], "Option '--file-prefix' requires an argument."),
        (["demo", "--messages", "0"], "Invalid value for '--messages': 0 is not in the range 1<=x<=1000000000."),
        (["demo", "--size", "many"], "Invalid value for '--size': 'many' is not a valid integer range."),
        (["demo", "--fault", "flood"], "Invalid value for '--fault': 'flood' is not one of 'corrupt', 'drop', 'swap'."),
    ],
)
def test_invalid_usage_is_status_2(runtime_dir: Path, words: list[str], error: str) -> None:
    assert error_of(*words, status=2) == error
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.parametrize("command", ["dump", "cmdline"])
@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_unknown_metadata_name_is_status_1(runtime_dir: Path, command: str, json_option: list[str]) -> None:
    error = error_of(command, "vm0", *json_option)
    assert error == f"no metadata 'vm0' in {runtime_dir}; existing: none"


def test_unknown_file_prefix_is_status_1(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("vm0")
    assert error_of("ls", "--file-prefix", "x") == f"file_prefix 'x' has no files in {runtime_dir}"
    for command in ("dump", "cmdline"):
        error = error_of(command, "vm0", "--file-prefix", "x")
        assert error == f"no metadata 'vm0' in file_prefix 'x' in {runtime_dir}; existing: none"
        assert succeed(command, "vm0", "--file-prefix", prefix)


@pytest.mark.parametrize(
    "name", ["", "a/b", "../../etc/passwd", "two\nlines", "\x1b[31m", "x" * 1000, "--help", "-x", "[bold]", ":smile:"]
)
def test_error_for_special_characters_in_name_is_one_line(runtime_dir: Path, name: str) -> None:
    for command in ("dump", "cmdline"):
        error = error_of(command, "--", name)
        assert error.startswith(f"no metadata {name!r} in ")


# --- ls, dump, cmdline --------------------------------------------------------------------------------------


def collect(name: str, prefix: str) -> dict[str, Any]:
    """Return the output of ls, dump and cmdline."""
    (state,) = json.loads(succeed("ls", "--json", "--file-prefix", prefix, run=run_process))
    dump = json.loads(succeed("dump", name, "--json", run=run_process))
    return {"ls": state, "dump": dump, "cmdline": succeed("cmdline", name, run=run_process).strip()}


def test_output_for_live_and_dead_host_is_equal(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    process = host("vm0")
    alive = collect("vm0", prefix)
    text = succeed("dump", "vm0")
    assert (alive["ls"]["status"], alive["ls"]["pid"], alive["ls"]["metadata"]) == ("alive", process.pid, ["vm0"])
    assert alive["cmdline"] == process.cmdline
    assert json.loads(succeed("cmdline", "vm0", "--json")) == shlex.split(process.cmdline)
    process.crash()
    dead = collect("vm0", prefix)
    assert (dead["ls"]["status"], dead["ls"]["pid"]) == ("dead", None)
    assert {**dead, "ls": None} == {**alive, "ls": None}
    assert dead["ls"]["registry"] == alive["ls"]["registry"]
    assert succeed("dump", "vm0") == text


def test_read_only_commands_do_not_change_files_or_locks(
    host: Callable[..., Any], runtime_dir: Path, prefix: str
) -> None:
    process = host("vm0")
    files = {path: path.read_bytes() for path in Path("/dev/shm").glob(f"*.{prefix}.*")}
    for command in (["ls"], ["ls", "--json"], ["dump", "vm0"], ["cmdline", "vm0"], ["clean", "--yes"]):
        succeed(*command, run=run_process)
        with pytest.raises(eal.InUse, match=rf"live primary \(pid {process.pid}\)"):
            eal.init(file_prefix=prefix, proc_type="primary", no_huge=True)
    assert {path: path.read_bytes() for path in Path("/dev/shm").glob(f"*.{prefix}.*")} == files
    process.end()


def test_ls_without_prefixes(runtime_dir: Path) -> None:
    assert succeed("ls") == f"no prefixes in {runtime_dir}\n"
    assert json.loads(succeed("ls", "--json")) == []


def test_ls_does_not_truncate_or_interpret_names(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe, which has no width. A name is neither markup nor an emoji."""
    names = ["z" * 31, "[bold]x", "[red]", ":warning:", "back\\", "a  b", "ü" * 15]
    for name in names:
        eal.memzone_reserve(name, 64, group="g" * 31)
        ivshmem.metadata_create(name)
    for width in ("200", "40"):
        monkeypatch.setenv("COLUMNS", width)
        text = succeed("ls", run=run_process)
        for name in names:
            assert text.count(name) == 2, (name, text)  # as a memzone and as metadata
        assert all(segment.path in text for segment in eal.segments())


def test_ls_lists_every_object(primary: eal.Eal) -> None:
    eal.memzone_reserve("zone", 3000)
    eal.ring_create("ring", 8)
    eal.mempool_create("pool", 8, 64)
    rows = [re.findall(r"[^│\s]+", line) for line in succeed("ls").splitlines() if "│" in line]
    found = {(row[0], row[1]) for row in rows}
    assert found == {("memzone", "zone"), ("ring", "ring"), ("mempool", "pool")}
    (zone,) = (row for row in rows if row[1] == "zone")
    assert zone == ["memzone", "zone", "3000", "B", "default", str(eal.segments()[0].uuid)[:8], "0x1000"]
    assert {row[1]: row[-1] for row in rows if row[0] == "ring"} == {"ring": "0/7"}
    assert {row[1]: row[-2:] for row in rows if row[0] == "mempool"} == {"pool": ["0/8", "used"]}


def test_ls_of_damaged_registry_reports_fault(host: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host("vm0").crash()
    (runtime_dir / prefix / "registry").write_bytes(b"x" * 5000)
    done = run_here("ls")
    assert (done.returncode, done.stderr) == (1, "")
    first, second, *faults = done.stdout.splitlines()
    assert [first, second] == [f"{prefix} (dead), metadata: vm0", "  registry cannot be read"]
    assert all(line.startswith(f"  FAULT: registry {runtime_dir}") for line in faults)
    done = run_here("ls", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["registry"] is None
    assert "no readable registry" in error_of("cmdline", "vm0")
    assert "zone" in succeed("dump", "vm0")


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 8192, b"IVSHMMET" + b"\xff" * 8192])
def test_dump_of_damaged_metadata_is_an_error(host: Callable[..., Any], prefix: str, damage: bytes) -> None:
    host("vm0").crash()
    (path,) = Path("/dev/shm").glob(f"*.{prefix}.*.md")
    path.write_bytes(damage)
    for command in (["dump", "vm0"], ["dump", "vm0", "--json"], ["cmdline", "vm0"]):
        assert error_of(*command).startswith("metadata file ")
    listed = run_here("ls")
    assert listed.returncode == 1
    assert "ring" in listed.stdout, "the registry is not damaged"
    assert "FAULT: " in listed.stdout


def test_example_of_cmdline_help_works_in_a_shell(runtime_dir: Path, tmp_path: Path) -> None:
    """With paths that contain two blanks, quotes and wildcards."""
    name = "a  b,c='d' \"e\" $(f) * ?"
    with eal.init(file_prefix=name, no_huge=True):
        metadata = ivshmem.metadata_create("vm0")
        metadata.add_memzone(eal.memzone_reserve("zone", 64))
        (example,) = re.findall(r"^  Example: (.*)$", succeed("cmdline", "--help"), re.MULTILINE)
        qemu = tmp_path / "qemu-system-x86_64"
        qemu.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
        qemu.chmod(0o755)
        path = f"{tmp_path}:{Path(IVSHMEM).parent}:{os.environ['PATH']}"
        run = subprocess.run(["sh", "-c", example], capture_output=True, text=True, env={**os.environ, "PATH": path})
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout) == ["-m", "512", *metadata.qemu_args()]


def test_cmdline_of_several_metadata_equals_qemu_args(primary: eal.Eal) -> None:
    made = [ivshmem.metadata_create(name) for name in ("vm0", "vm1")]
    for metadata in made:
        metadata.add_memzone(eal.memzone_reserve(metadata.name, 64))
    assert json.loads(succeed("cmdline", "vm1", "--json")) == made[1].qemu_args()
    words = ["cmdline", "vm0", "vm1", "--plug", "256M"]
    assert json.loads(succeed(*words, "--json")) == ivshmem.qemu_args(*made, plug="256M")
    assert shlex.split(succeed(*words)) == ivshmem.qemu_args(*made, plug="256M")
    assert error_of("cmdline", "vm0", "--plug", "much") == "plug must be a size such as '1G' or '256M', got 'much'"


def test_cmdline_with_missing_segment_file_is_an_error(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    path = eal.segments()[0].path
    os.unlink(path)
    error = f"file {path} of metadata 'vm0' does not exist: was it removed by hand?"
    assert error_of("cmdline", "vm0") == error
    assert error_of("cmdline", "vm0", "--json") == error
    assert not Path(path).exists()


def test_file_prefix_that_is_not_utf_8(runtime_dir: Path) -> None:
    name = "caf\udce9"  # "café" in Latin 1
    with eal.init(file_prefix=name, no_huge=True):
        metadata = ivshmem.metadata_create("vm0")
        metadata.add_memzone(eal.memzone_reserve("zone", 64))
        args = [os.fsencode(word) for word in metadata.qemu_args()]
        for locale in ("C.UTF-8", "C"):
            env = {**os.environ, "LC_ALL": locale}
            run = subprocess.run([IVSHMEM, "cmdline", "vm0"], capture_output=True, env=env)
            assert run.returncode == 0, run.stderr
            assert [os.fsencode(word) for word in shlex.split(os.fsdecode(run.stdout))] == args
            listed = subprocess.run([IVSHMEM, "ls", "--file-prefix", os.fsencode(name)], capture_output=True, env=env)
            assert listed.returncode == 0, listed.stderr
            assert b"caf\xe9" in listed.stdout
            assert json.loads(succeed("ls", "--json"))[0]["file_prefix"] == name


# --- pipes and terminals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["ls", "ls --json", "dump vm0", "dump vm0 --json", "cmdline vm0", "--help"])
def test_closed_pipe_is_not_an_error(primary: eal.Eal, command: str) -> None:
    """As in `ivshmem ls | head -0`."""
    metadata = ivshmem.metadata_create("vm0")
    for number in range(20):
        zone = eal.memzone_reserve(f"zone{number}", 64)
        metadata.add_memzone(zone)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        run = subprocess.run([IVSHMEM, *command.split()], stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60)
    assert run.stderr == ""
    assert run.returncode in (0, 1)
    shell = f"{IVSHMEM} {command} | head -0"
    assert subprocess.run(["sh", "-c", shell], stderr=subprocess.PIPE, text=True).stderr == ""


def test_full_disk_is_an_error(primary: eal.Eal) -> None:
    ivshmem.metadata_create("vm0")
    for command in (["ls"], ["ls", "--json"], ["dump", "vm0"], ["cmdline", "vm0"]):
        with open("/dev/full", "w") as full:
            run = subprocess.run([IVSHMEM, *command], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert run.returncode == 1, (command, run)
        assert "Traceback" not in run.stderr
        assert "No space left on device" in run.stderr


def test_output_is_coloured_only_on_a_terminal(primary: eal.Eal) -> None:
    ivshmem.metadata_create("vm0")
    assert "\x1b" not in succeed("ls", run=run_process)
    controller, terminal = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    run = subprocess.run([IVSHMEM, "ls"], stdout=terminal, stderr=subprocess.PIPE, env=env, timeout=60)
    os.close(terminal)
    assert (run.returncode, run.stderr) == (0, b"")
    assert b"\x1b[1m" in os.read(controller, 1 << 16)
    os.close(controller)


@pytest.mark.parametrize("words", [["ls"], ["dump", "vm0"], ["cmdline", "vm0"], ["clean", "--dry-run"]])
def test_stdout_with_json_option_is_only_json(host: Callable[..., Any], prefix: str, words: list[str]) -> None:
    process = host("vm0")
    if words[0] == "clean":
        process.crash()
    for more in ([], ["-v"]):
        assert json.loads(succeed(*more, *words, "--json", run=run_process))
