# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures and options of all tests: file prefix, runtime directory, peer processes, hugepages, --no-skips."""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import eal

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20

# A shell starts background jobs with these signals ignored, and children inherit that; but tests send these signals.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _default)

# --- marks --------------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)  # before pytest's own -m is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need the whole machine as serial: those with hugepages, and VM tests that need all CPUs."""
    for item in items:
        if "hugepages" in getattr(item, "fixturenames", ()):
            item.add_marker("hugepages")
        alone_in_vm = item.get_closest_marker("vm") and item.get_closest_marker("vm_alone")
        if alone_in_vm or item.get_closest_marker("hugepages"):
            item.add_marker("serial")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a marked test if this machine does not meet the mark's requirement; the reason names the packages."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("requires root")
    for mark, group in (("vm", "vm"), ("vm_image", "vm"), ("dpdk", "dpdk")):
        if item.get_closest_marker(mark) and (packages := missing_packages(group)):
            pytest.skip(f"not installed: {packages}")


@functools.cache
def missing_packages(group: str) -> str:
    """Return the missing packages of a group of tools/needs.sh and the command that installs them; "" if none."""
    needs = subprocess.run([ROOT / "tools" / "needs.sh", "missing", group], capture_output=True, text=True)
    return needs.stdout.strip()


# --- --no-skips ---------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped or xfailed test fails the run")


def pytest_configure(config: pytest.Config) -> None:
    # With xdist the controller receives the reports of all workers.
    if config.getoption("--no-skips") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NoSkips(), "no-skips")


class NoSkips:
    """Records each skipped or xfailed test and each skipped module, and fails the run if there are any."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.record(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.record(report)

    def record(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if hasattr(report, "wasxfail"):
            self.skipped.append(f"{report.nodeid}: expected to fail: {report.wasxfail or 'no reason given'}")
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self.skipped.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.skipped and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped or xfailed, which fails the run with --no-skips", red=True)
            for line in self.skipped:
                terminalreporter.line(line)


# --- Eal, prefix and runtime directory of a test ------------------------------------------------------------

serial_numbers = itertools.count()


def close_current_eal() -> None:
    """Close this process's Eal if the test has left one open. Does not import eal itself, to keep other tests fast."""
    if "eal.lifecycle.startup" not in sys.modules:  # no test has called eal.init yet
        return
    import eal

    try:
        current = eal.current()
    except eal.EalError:
        return
    if current is not None:
        current.close()


@pytest.fixture(autouse=True)
def _closed_eal() -> Iterator[None]:
    yield
    close_current_eal()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a unique file_prefix. The test fails if it leaves files of the prefix in /dev/shm, unless it is marked
    `leaves_files`.
    """
    name = f"t{os.getpid():x}n{next(serial_numbers)}"
    yield name
    close_current_eal()
    # Names are ivshmem.<uid>.<tag>.<prefix>.<uuid>.seg or .md.
    left = glob.glob(f"/dev/shm/ivshmem.*.{name}.*")
    for path in left:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if not request.node.get_closest_marker("leaves_files"):
        assert not left, f"test left files of its prefix: {left}"


@pytest.fixture
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new runtime directory, which child processes inherit as $EAL_RUNTIME_DIR."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(directory))
    return directory


# --- other processes ----------------------------------------------------------------------------------------


class Peer(subprocess.Popen[str]):
    """A Python process that runs a script of a test and exchanges lines with the test over stdin and stdout."""

    def __init__(self, script: str, *arguments: object) -> None:
        command = [sys.executable, "-P", "-c", textwrap.dedent(script), *map(str, arguments)]
        self.stderr_file = tempfile.TemporaryFile("w+")
        super().__init__(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr_file, text=True, bufsize=1
        )

    def error(self) -> str:
        self.stderr_file.seek(0)
        return self.stderr_file.read()

    def hear(self, timeout: float = 30) -> str:
        """Return the next line of the process's stdout. If there is none, fail with the process's stderr."""
        assert self.stdout is not None
        assert select.select([self.stdout], [], [], timeout)[0], f"no output within {timeout} s; {self.error()}"
        line = self.stdout.readline()
        assert line, f"ended with status {self.wait(timeout)}: {self.error()}"
        return line.rstrip("\n")

    def say(self, line: str = "") -> None:
        assert self.stdin is not None
        self.stdin.write(line + "\n")

    def end(self, timeout: float = 60) -> str:
        """Close the process's stdin, wait for exit status 0, and return the rest of its stdout."""
        try:
            out, _ = self.communicate(timeout=timeout)
        finally:
            self.kill()
        assert self.returncode == 0, f"status {self.returncode}: {self.error()}"
        return out

    def crash(self) -> None:
        """Send SIGKILL and wait for the process to end."""
        self.kill()
        self.wait()


@pytest.fixture
def peer(runtime_dir: Path, prefix: str) -> Iterator[Callable[..., Peer]]:
    """Return a function that starts a Peer. The script's sys.argv[1] is the test's prefix, followed by the arguments.

    All peers are killed when the test ends.
    """
    with contextlib.ExitStack() as cleanup:

        def start(script: str, *arguments: object) -> Peer:
            process = cleanup.enter_context(Peer(script, prefix, *arguments))
            cleanup.callback(process.kill)
            return process

        yield start


@pytest.fixture
def primary(runtime_dir: Path, prefix: str) -> Iterator[eal.Eal]:
    """Initialize this process as the primary process of the test's prefix, without hugepages."""
    import eal

    with eal.init(["--no-pci"], file_prefix=prefix, proc_type="primary", no_huge=True) as app:
        yield app


# --- hugepages ----------------------------------------------------------------------------------------------


@pytest.fixture
def hugepages(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function (count, page_size=2 MiB) that mounts a hugetlbfs with exactly `count` free pages.

    The function returns the mount point. The mount is removed and the pages are released when the test ends.
    """
    with contextlib.ExitStack() as cleanup:
        numbers = itertools.count()

        def mount(count: int, page_size: int = 2 * MIB) -> Path:
            if os.geteuid() != 0:
                pytest.skip("hugepages require root")
            raise_free_pages(cleanup, count, page_size)
            return mount_hugetlbfs(cleanup, tmp_path / f"huge{next(numbers)}", count, page_size)

        yield mount


def raise_free_pages(cleanup: contextlib.ExitStack, count: int, page_size: int) -> None:
    """Raise nr_hugepages until `count` unreserved pages are free; `cleanup` restores the old value."""
    pool = Path(f"/sys/kernel/mm/hugepages/hugepages-{page_size // 1024}kB")
    if not pool.is_dir():
        pytest.skip(f"kernel does not support hugepages of {page_size // MIB} MiB")

    def read(name: str) -> int:
        return int((pool / f"{name}_hugepages").read_text())

    before = read("nr")
    missing = count - (read("free") - read("resv"))
    if missing > 0:
        cleanup.callback((pool / "nr_hugepages").write_text, str(before))
        (pool / "nr_hugepages").write_text(str(before + missing))
        if (got := read("nr") - before) < missing:
            pytest.skip(f"kernel allocated {got} of {missing} hugepages of {page_size // MIB} MiB")


def mount_hugetlbfs(cleanup: contextlib.ExitStack, directory: Path, count: int, page_size: int) -> Path:
    directory.mkdir()
    total = count * page_size
    # min_size reserves the pages for this mount; size prevents the mount from using more.
    options = f"pagesize={page_size // MIB}M,size={total},min_size={total}"
    mount = ["mount", "-t", "hugetlbfs", "-o", options, "none", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount hugetlbfs: {done.stderr.strip()}")
    cleanup.callback(unmount, directory)
    return directory


def unmount(directory: Path) -> None:
    # --lazy: a failed test can still have mappings of the mount.
    subprocess.run(["umount", "--lazy", directory], check=True)
