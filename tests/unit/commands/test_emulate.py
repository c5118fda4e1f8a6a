# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem emulate` as people run it: status, environment, signals, Ctrl-C, and nothing left behind."""

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
    """A folder for temporary files, which the commands must leave empty."""
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


def said_error(run: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that an error is, without its "Error: "."""
    assert run.returncode == status, run
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    lines = run.stderr.splitlines()
    if status == 2:  # a usage error shows the usage first
        assert lines[0].startswith("Usage: ivshmem emulate")
        lines = lines[-1:]
    (line,) = lines
    return line.removeprefix("Error: ")


# --- status and words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 1", 1), ("exit 77", 77), ("kill -9 $$", 137), ("kill -USR1 $$", 138)]
)
def test_the_status_is_the_commands(vm0: ivshmem.Metadata, script: str, status: int) -> None:
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
def test_the_commands_own_words_are_left_alone(vm0: ivshmem.Metadata, words: list[str]) -> None:
    run = emulate("vm0", "--", *PYTHON, "import json, sys; print(json.dumps(sys.argv[1:]))", *words)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == words


def test_standard_input_and_output_are_the_commands(vm0: ivshmem.Metadata) -> None:
    run = emulate("vm0", "--", "sh", "-c", "cat; echo oops >&2", input="through\n")
    assert (run.returncode, run.stdout, run.stderr) == (0, "through\n", "oops\n")


def test_the_guest_sees_a_bus_and_a_place_of_its_own(vm0: ivshmem.Metadata, runtime_dir: Path) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    run = emulate("vm0", "--", *PYTHON, code, env={**os.environ, "MINE": "kept"})
    seen = json.loads(run.stdout)
    assert seen["MINE"] == "kept"
    assert seen["EAL_RUNTIME_DIR"] != str(runtime_dir)
    changed = {name for name in seen if seen[name] != os.environ.get(name)} - {"MINE"}
    assert changed == {"EAL_RUNTIME_DIR", "EAL_SYSFS_ROOT"}


FINDS = """
import eal, json
with eal.init() as guest:
    found = {share.name: [entry.name for entry in share.table.entries] for share in guest.shares}
    zones = [zone.name for zone in eal.memzones()]
    print(json.dumps([found, zones, len(eal.segments()), [str(r) for r in guest.rejections]]))
"""


def test_several_names(vm0: ivshmem.Metadata) -> None:
    """With a segment in common, which the guest maps once."""
    vm1 = ivshmem.metadata_create("vm 1,=")
    vm1.add_memzone(eal.memzone_lookup("zone"))
    vm1.add_memzone(eal.memzone_reserve("apart", 64, group="apart"), readonly=True)
    run = emulate("vm0", "vm 1,=", "vm0", "--", *PYTHON, FINDS)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [{"vm0": ["zone"], "vm 1,=": ["zone", "apart"]}, ["apart", "zone"], 2, []]


def test_metadata_of_two_prefixes(vm0: ivshmem.Metadata, peer: Callable[..., Any], prefix: str) -> None:
    other = peer(
        """
        import sys, eal, ivshmem
        with eal.init(file_prefix=sys.argv[1] + "other", no_huge=True):
            ivshmem.metadata_create("vm1").add_memzone(eal.memzone_reserve("theirs", 64))
            print("made", flush=True)
            sys.stdin.readline()
        """
    )
    other.hear()
    run = emulate("vm0", "vm1", "--", *PYTHON, FINDS)
    assert json.loads(run.stdout)[:3] == [{"vm0": ["zone"], "vm1": ["theirs"]}, ["theirs", "zone"], 2]
    run = emulate("--file-prefix", prefix, "vm0", "--", "true")
    assert run.returncode == 0
    run = emulate("--file-prefix", prefix, "vm1", "--", "true")
    assert said_error(run, 1).startswith(f"there is no metadata 'vm1' of file_prefix '{prefix}'")
    other.end()


def test_after_the_host_was_killed(peer: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    host = peer(
        """
        import sys, time, eal, ivshmem
        eal.init(file_prefix=sys.argv[1], no_huge=True)
        ivshmem.metadata_create("vm0").add_memzone(eal.memzone_reserve("zone", 64))
        print("made", flush=True)
        time.sleep(60)
        """
    )
    host.hear()
    host.crash()
    run = emulate("vm0", "--", *PYTHON, FINDS)
    assert json.loads(run.stdout)[0] == {"vm0": ["zone"]}
    subprocess.run([IVSHMEM, "clean", "--yes"], check=True, capture_output=True)


# --- errors -------------------------------------------------------------------------------------------------


def test_a_command_that_is_not_there(vm0: ivshmem.Metadata, tmp_path: Path) -> None:
    error = said_error(emulate("vm0", "--", "no-such-command"), 1)
    assert error == "cannot run 'no-such-command': No such file or directory"
    (tmp_path / "plain").write_text("not for running")
    error = said_error(emulate("vm0", "--", str(tmp_path / "plain")), 1)
    assert error == f"cannot run '{tmp_path / 'plain'}': Permission denied"


def test_an_unknown_name(vm0: ivshmem.Metadata, runtime_dir: Path) -> None:
    error = said_error(emulate("vm0", "vm9", "--", "touch", str(runtime_dir / "ran")), 1)
    assert error == f"there is no metadata 'vm9' in {runtime_dir}; there are: 'vm0'"
    assert not (runtime_dir / "ran").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["vm0", "true"], "put -- between the metadata and the command"),
        (["vm0"], "put -- between the metadata and the command"),
        (["vm0", "--"], "a command is needed after --"),
        (["--"], "a command is needed after --"),
        (["--", "true"], "Missing argument 'NAME... -- COMMAND [ARG]...'."),
        ([], "put -- between the metadata and the command"),
        (["--no-such-option", "vm0", "--", "true"], "No such option '--no-such-option'."),
        (["vm0", "--no-such-option", "--", "true"], "No such option '--no-such-option'."),
    ],
)
def test_words_that_make_no_sense(runtime_dir: Path, words: list[str], error: str) -> None:
    assert said_error(emulate(*words), 2) == error


def test_a_file_that_is_gone(vm0: ivshmem.Metadata) -> None:
    path = eal.segments()[0].path
    os.unlink(path)
    assert said_error(emulate("vm0", "--", "true"), 1).startswith(f"{path}, which metadata 'vm0' needs, is gone")


# --- leftovers ----------------------------------------------------------------------------------------------

MESSY = """
import os, sys, eal, ivshmem
made = eal.init(file_prefix=sys.argv[1], no_huge=True)
ivshmem.metadata_create("own").add_ring(eal.ring_create("ring", 8))
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
made.detach()
"""


@pytest.mark.parametrize(("end", "status"), [("kill", 137), ("keep", 0)])
def test_what_the_guest_left_is_removed(vm0: ivshmem.Metadata, prefix: str, end: str, status: int) -> None:
    before = sorted(Path("/dev/shm").glob("ivshmem.*"))
    mine = [path for path in before if f".{prefix}." in path.name]
    run = emulate("vm0", "--", *PYTHON, MESSY, prefix, end)  # the host's own file_prefix, in a world of its own
    assert run.returncode == status, run.stderr
    assert sorted(Path("/dev/shm").glob(f"*.{prefix}.*")) == mine
    assert len(vm0.devices()) == 2


# --- signals ------------------------------------------------------------------------------------------------

# Counts what it gets until its standard input says enough, and ends with 5.
COUNTS = """
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
    """`ivshmem emulate`, without a terminal, as a service has it."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [IVSHMEM, "emulate", *words], stdout=pipe, stderr=pipe, text=True, start_new_session=True, **how
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on(vm0: ivshmem.Metadata, number: signal.Signals) -> None:
    with start("vm0", "--", *PYTHON, COUNTS) as process:
        assert first_line(process) == "ready"
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
    assert (out, errors, process.returncode) == (f"['{number.name}']\n", "", 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_guest_that_a_signal_ends(vm0: ivshmem.Metadata, number: signal.Signals) -> None:
    with start("vm0", "--", "sh", "-c", "ulimit -c 0; echo ready; exec sleep 30") as process:
        assert first_line(process) == "ready"
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
    assert (out, errors, process.returncode) == ("", "", 128 + number)


def test_what_nohup_ignores_stays_ignored(vm0: ivshmem.Metadata) -> None:
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with start("vm0", "--", "sh", "-c", "echo ready; sleep 0.3; exit 3", **ignore) as process:
        assert first_line(process) == "ready"
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
    assert process.returncode == 3


class Terminal:
    """A command in a terminal of its own, and what it printed there."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.execv(command[0], command)
            finally:
                os._exit(127)
        self.text = ""

    def until(self, text: str, timeout: float = 30) -> None:
        """Reads until some text has come; "" for all of it."""
        end = time.monotonic() + timeout
        while not text or text not in self.text:
            assert select.select([self._fd], [], [], max(0, end - time.monotonic()))[0], self.text
            try:
                piece = os.read(self._fd, 4096)
            except OSError:  # the other end is closed
                piece = b""
            if not piece:
                assert not text, self.text
                return
            self.text += piece.decode().replace("\r\n", "\n")

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        """Its exit status, when all was read."""
        try:
            self.until("")
        except BaseException:
            os.kill(self.pid, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(self.pid, 0)
            os.close(self._fd)
        return os.waitstatus_to_exitcode(status)


def test_ctrl_c_reaches_the_guest_once(vm0: ivshmem.Metadata) -> None:
    """The terminal sends it to both: passed on as well it would come again, in the middle of the guest's clean-up."""
    terminal = Terminal([IVSHMEM, "emulate", "vm0", "--", *PYTHON, COUNTS])
    terminal.until("ready\n")
    terminal.type("\x03")
    assert terminal.end() == 5
    assert terminal.text.splitlines()[-1].removeprefix("^C") == "['SIGINT']"
    assert "Traceback" not in terminal.text


SLEEPS = """
import time, eal
with eal.init(no_huge=True):
    eal.memzone_reserve("own", 64)
    print("ready", flush=True)
    for _ in range(3000):  # a SIGINT just before a sleep is noticed only after it
        time.sleep(0.01)
"""


def test_ctrl_c_ends_a_guest_that_does_not_mind(vm0: ivshmem.Metadata, prefix: str) -> None:
    mine = sorted(Path("/dev/shm").glob(f"*.{prefix}.*"))
    terminal = Terminal([IVSHMEM, "emulate", "vm0", "--", *PYTHON, SLEEPS])
    terminal.until("ready\n")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert terminal.text.count("KeyboardInterrupt") == 1  # the guest's own words
    assert sorted(Path("/dev/shm").glob(f"*.{prefix}.*")) == mine


@pytest.mark.parametrize("mode", [[], ["--json"]])
def test_ctrl_c_in_the_demo_leaves_nothing(runtime_dir: Path, mode: list[str], prefix: str) -> None:
    terminal = Terminal([IVSHMEM, "demo", "--messages", "100000000", "--file-prefix", prefix, *mode])
    deadline = time.monotonic() + 30
    while not list(Path("/dev/shm").glob(f"*.{prefix}.*.md")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(1)  # in the middle of it
    terminal.type("\x03")
    assert terminal.end() == 1
    assert "Aborted!" in terminal.text
    assert "Traceback" not in terminal.text
    assert list(Path("/dev/shm").glob(f"*.{prefix}.*")) == []
    assert list(runtime_dir.iterdir()) == []
