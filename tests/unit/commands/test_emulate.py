# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem emulate` as a process: exit status, environment, signals, Ctrl-C, and the removal of its files."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem

IVSHMEM = str(Path(sys.executable).with_name("ivshmem"))
PYTHON = [sys.executable, "-P", "-c"]


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Temporary directory of the commands, which they must leave empty."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def vm0(primary: eal.Eal) -> ivshmem.Metadata:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    return metadata


def emulate(*words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IVSHMEM, "emulate", *words], capture_output=True, text=True, timeout=60, **how)


def error_line(run: subprocess.CompletedProcess[str], status: int) -> str:
    """Check that stderr is one error line, after the usage for status 2; return it without "Error: "."""
    assert run.returncode == status, run
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    lines = run.stderr.splitlines()
    if status == 2:
        assert lines[0].startswith("Usage: ivshmem emulate")
        lines = lines[-1:]
    (line,) = lines
    return line.removeprefix("Error: ")


# --- exit status and arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 1", 1), ("exit 77", 77), ("kill -9 $$", 137), ("kill -USR1 $$", 138)]
)
def test_emulate_returns_status_of_command(vm0: ivshmem.Metadata, script: str, status: int) -> None:
    run = emulate("vm0", "--", "sh", "-c", script)
    assert (run.returncode, run.stdout, run.stderr) == (status, "", "")


@pytest.mark.parametrize(
    "words",
    [
        ["--json"],
        ["--help"],
        ["-h", "--file-prefix", "x", "--version"],
        ["--", "a", "--", "b"],
        ["--"],
        ["", " ", "a  b", "'", '"', "$x", "*", "-"],
    ],
)
def test_arguments_after_separator_reach_command_unchanged(vm0: ivshmem.Metadata, words: list[str]) -> None:
    run = emulate("vm0", "--", *PYTHON, "import json, sys; print(json.dumps(sys.argv[1:]))", *words)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == words


def test_command_inherits_stdin_stdout_and_stderr(vm0: ivshmem.Metadata) -> None:
    run = emulate("vm0", "--", "sh", "-c", "cat; echo oops >&2", input="through\n")
    assert (run.returncode, run.stdout, run.stderr) == (0, "through\n", "oops\n")


def test_guest_environment_has_bus_and_private_runtime_dir(vm0: ivshmem.Metadata, runtime_dir: Path) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    run = emulate("vm0", "--", *PYTHON, code, env={**os.environ, "MINE": "kept"})
    seen = json.loads(run.stdout)
    assert seen["MINE"] == "kept"
    assert seen["EAL_RUNTIME_DIR"] != str(runtime_dir)
    changed = {name for name in seen if seen[name] != os.environ.get(name)} - {"MINE"}
    assert changed == {"EAL_RUNTIME_DIR", "EAL_SYSFS_ROOT"}


FINDER = """
import eal, json
with eal.init() as guest:
    found = {share.name: [entry.name for entry in share.table.entries] for share in guest.shares}
    zones = [zone.name for zone in eal.memzones()]
    print(json.dumps([found, zones, len(eal.segments()), [str(r) for r in guest.rejections]]))
"""


def test_guest_of_several_metadata_maps_common_segment_once(vm0: ivshmem.Metadata) -> None:
    vm1 = ivshmem.metadata_create("vm 1,=")
    vm1.add_memzone(eal.memzone_lookup("zone"))
    vm1.add_memzone(eal.memzone_reserve("apart", 64, group="apart"), readonly=True)
    run = emulate("vm0", "vm 1,=", "vm0", "--", *PYTHON, FINDER)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [{"vm0": ["zone"], "vm 1,=": ["zone", "apart"]}, ["apart", "zone"], 2, []]


def test_metadata_is_found_in_all_prefixes_or_in_the_given_one(
    vm0: ivshmem.Metadata, peer: Callable[..., Any], prefix: str
) -> None:
    other = peer(
        """
        import sys, eal, ivshmem
        with eal.init(file_prefix=sys.argv[1] + "other", no_huge=True):
            ivshmem.metadata_create("vm1").add_memzone(eal.memzone_reserve("theirs", 64))
            print("ready", flush=True)
            sys.stdin.readline()
        """
    )
    other.hear()
    run = emulate("vm0", "vm1", "--", *PYTHON, FINDER)
    assert json.loads(run.stdout)[:3] == [{"vm0": ["zone"], "vm1": ["theirs"]}, ["theirs", "zone"], 2]
    run = emulate("--file-prefix", prefix, "vm0", "--", "true")
    assert run.returncode == 0
    run = emulate("--file-prefix", prefix, "vm1", "--", "true")
    assert error_line(run, 1).startswith(f"no metadata 'vm1' in file_prefix '{prefix}'")
    other.end()


def test_guest_of_killed_host_finds_its_share(peer: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host = peer(
        """
        import sys, time, eal, ivshmem
        eal.init(file_prefix=sys.argv[1], no_huge=True)
        ivshmem.metadata_create("vm0").add_memzone(eal.memzone_reserve("zone", 64))
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    host.hear()
    host.crash()
    run = emulate("vm0", "--", *PYTHON, FINDER)
    assert json.loads(run.stdout)[0] == {"vm0": ["zone"]}
    subprocess.run([IVSHMEM, "clean", "--yes"], check=True, capture_output=True)


# --- errors -------------------------------------------------------------------------------------------------


def test_command_that_cannot_be_executed_is_an_error(vm0: ivshmem.Metadata, tmp_path: Path) -> None:
    error = error_line(emulate("vm0", "--", "no-such-command"), 1)
    assert error == "cannot run 'no-such-command': No such file or directory"
    (tmp_path / "plain").write_text("not for running")
    error = error_line(emulate("vm0", "--", str(tmp_path / "plain")), 1)
    assert error == f"cannot run '{tmp_path / 'plain'}': Permission denied"


def test_unknown_metadata_name_is_an_error(vm0: ivshmem.Metadata, runtime_dir: Path) -> None:
    error = error_line(emulate("vm0", "vm9", "--", "touch", str(runtime_dir / "ran")), 1)
    assert error == f"no metadata 'vm9' in {runtime_dir}; existing: 'vm0'"
    assert not (runtime_dir / "ran").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["vm0", "true"], "put -- between NAME and COMMAND"),
        (["vm0"], "put -- between NAME and COMMAND"),
        (["vm0", "--"], "put COMMAND after --"),
        (["--"], "put COMMAND after --"),
        (["--", "true"], "Missing argument 'NAME... -- COMMAND [ARG]...'."),
        ([], "put -- between NAME and COMMAND"),
        (["--no-such-option", "vm0", "--", "true"], "No such option '--no-such-option'."),
        (["vm0", "--no-such-option", "--", "true"], "No such option '--no-such-option'."),
    ],
)
def test_invalid_arguments_are_invalid_usage(runtime_dir: Path, words: list[str], error: str) -> None:
    assert error_line(emulate(*words), 2) == error


def test_missing_segment_file_is_an_error(vm0: ivshmem.Metadata) -> None:
    path = eal.segments()[0].path
    os.unlink(path)
    assert error_line(emulate("vm0", "--", "true"), 1).startswith(f"file {path} of metadata 'vm0' does not exist")


# --- files of the guest -------------------------------------------------------------------------------------

LEAVES_FILES = """
import os, sys, eal, ivshmem
made = eal.init(file_prefix=sys.argv[1], no_huge=True)
ivshmem.metadata_create("own").add_ring(eal.ring_create("ring", 8))
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
made.detach()
"""


@pytest.mark.parametrize(("end", "status"), [("kill", 137), ("keep", 0)])
def test_files_of_ended_guest_are_removed(vm0: ivshmem.Metadata, prefix: str, end: str, status: int) -> None:
    before = sorted(Path("/dev/shm").glob("ivshmem.*"))
    mine = [path for path in before if f".{prefix}." in path.name]
    run = emulate(
        "vm0", "--", *PYTHON, LEAVES_FILES, prefix, end
    )  # the host's file_prefix, in the guest's runtime directory
    assert run.returncode == status, run.stderr
    assert sorted(Path("/dev/shm").glob(f"*.{prefix}.*")) == mine
    assert len(vm0.devices()) == 2


# --- signals ------------------------------------------------------------------------------------------------

# Prints the signals that arrive within 0.2 s after the first, and exits with status 5.
RECORDER = """
import signal, sys, time
seen = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: seen.append(number))
print("ready", flush=True)
end = time.monotonic() + 20
while not seen and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.2)
print([signal.Signals(number).name for number in seen], flush=True)
sys.exit(5)
"""


def start(*words: str, **how: Any) -> subprocess.Popen[str]:
    """Start `ivshmem emulate` without a terminal, like a service."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [IVSHMEM, "emulate", *words], stdout=pipe, stderr=pipe, text=True, start_new_session=True, **how
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_is_forwarded_to_command(vm0: ivshmem.Metadata, number: signal.Signals) -> None:
    with start("vm0", "--", *PYTHON, RECORDER) as process:
        assert first_line(process) == "ready"
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
    assert (out, errors, process.returncode) == (f"['{number.name}']\n", "", 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_status_of_command_ended_by_forwarded_signal(vm0: ivshmem.Metadata, number: signal.Signals) -> None:
    with start("vm0", "--", "sh", "-c", "ulimit -c 0; echo ready; exec sleep 30") as process:
        assert first_line(process) == "ready"
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
    assert (out, errors, process.returncode) == ("", "", 128 + number)


def test_signal_ignored_by_nohup_stays_ignored(vm0: ivshmem.Metadata) -> None:
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with start("vm0", "--", "sh", "-c", "echo ready; sleep 0.3; exit 3", **ignore) as process:
        assert first_line(process) == "ready"
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
    assert process.returncode == 3


class Terminal:
    """A command with a pseudo-terminal of its own, and the text that it printed."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.execv(command[0], command)
            finally:
                os._exit(127)
        self.text = ""

    def until(self, text: str, timeout: float = 30) -> None:
        """Read until a text has arrived; "": until the terminal is closed."""
        end = time.monotonic() + timeout
        while not text or text not in self.text:
            assert select.select([self._fd], [], [], max(0, end - time.monotonic()))[0], self.text
            try:
                piece = os.read(self._fd, 4096)
            except OSError:  # the command has closed its side
                piece = b""
            if not piece:
                assert not text, self.text
                return
            self.text += piece.decode().replace("\r\n", "\n")

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        """Read all output and return the exit status."""
        try:
            self.until("")
        except BaseException:
            os.kill(self.pid, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(self.pid, 0)
            os.close(self._fd)
        return os.waitstatus_to_exitcode(status)


def test_ctrl_c_reaches_guest_once(vm0: ivshmem.Metadata) -> None:
    """The terminal signals both processes. A forwarded signal would be a second one, during the guest's clean-up."""
    terminal = Terminal([IVSHMEM, "emulate", "vm0", "--", *PYTHON, RECORDER])
    terminal.until("ready\n")
    terminal.type("\x03")
    assert terminal.end() == 5
    assert terminal.text.splitlines()[-1].removeprefix("^C") == "['SIGINT']"
    assert "Traceback" not in terminal.text


SLEEPER = """
import time, eal
with eal.init(no_huge=True):
    eal.memzone_reserve("own", 64)
    print("ready", flush=True)
    for _ in range(3000):  # a SIGINT just before a sleep is noticed only after it
        time.sleep(0.01)
"""


def test_ctrl_c_ends_guest_without_handler(vm0: ivshmem.Metadata, prefix: str) -> None:
    mine = sorted(Path("/dev/shm").glob(f"*.{prefix}.*"))
    terminal = Terminal([IVSHMEM, "emulate", "vm0", "--", *PYTHON, SLEEPER])
    terminal.until("ready\n")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert terminal.text.count("KeyboardInterrupt") == 1  # from the guest
    assert sorted(Path("/dev/shm").glob(f"*.{prefix}.*")) == mine


@pytest.mark.parametrize("mode", [[], ["--json"]])
def test_ctrl_c_in_demo_leaves_no_files(runtime_dir: Path, mode: list[str], prefix: str) -> None:
    terminal = Terminal([IVSHMEM, "demo", "--messages", "100000000", "--file-prefix", prefix, *mode])
    deadline = time.monotonic() + 30
    while not list(Path("/dev/shm").glob(f"*.{prefix}.*.md")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(1)  # during the exchange
    terminal.type("\x03")
    assert terminal.end() == 1
    assert "Aborted!" in terminal.text
    assert "Traceback" not in terminal.text
    assert list(Path("/dev/shm").glob(f"*.{prefix}.*")) == []
    assert list(runtime_dir.iterdir()) == []
