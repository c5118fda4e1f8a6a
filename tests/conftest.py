# SPDX-License-Identifier: BSD-3-Clause
"""What every test may use: a prefix and a runtime directory of its own, hugepages, and --no-skips."""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import os
import select
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

# --- marks --------------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)  # before pytest's own -m is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """VMs and hugepages belong to the whole machine, so their tests run one at a time."""
    for item in items:
        if "hugepages" in getattr(item, "fixturenames", ()):
            item.add_marker("hugepages")
        if item.get_closest_marker("vm") or item.get_closest_marker("hugepages"):
            item.add_marker("serial")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a marked test where the machine lacks what the mark stands for, and says what to install."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    for mark, group in (("vm", "vm"), ("vm_image", "vm"), ("dpdk", "dpdk")):
        if item.get_closest_marker(mark) and (packages := missing_packages(group)):
            pytest.skip(f"missing here: {packages}")


@functools.cache
def missing_packages(group: str) -> str:
    """The packages of a group of tools/needs.sh that are missing, and the command for them; "" if none."""
    needs = subprocess.run([ROOT / "tools" / "needs.sh", "missing", group], capture_output=True, text=True)
    return needs.stdout.strip()


# --- --no-skips ---------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped or xfailed test fails the run")


def pytest_configure(config: pytest.Config) -> None:
    # With xdist the workers' reports all come to the controller, so it alone keeps count.
    if config.getoption("--no-skips") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NoSkips(), "no-skips")


class NoSkips:
    """Notes each test or module that did not run in earnest, and makes the run fail for it."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if hasattr(report, "wasxfail"):
            self.faults.append(f"{report.nodeid}: expected to fail: {report.wasxfail or 'no reason given'}")
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self.faults.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.faults and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.faults:
            terminalreporter.section("not run, which --no-skips makes a failure", red=True)
            for fault in self.faults:
                terminalreporter.line(fault)


# --- one Eal, one prefix, one runtime directory a test ------------------------------------------------------

serial_numbers = itertools.count()


def close_current_eal() -> None:
    """Closes the Eal of this process, if a test has left one. A test that never imported eal pays nothing."""
    if "eal.lifecycle.startup" not in sys.modules:  # then no Eal was ever made
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
    """A file_prefix that nothing else uses. No file of it may be left in /dev/shm when the test ends, unless
    the test is marked `leaves_files`.
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
        assert not left, f"the test left files of its prefix: {left}"


@pytest.fixture
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own, which child processes inherit as $EAL_RUNTIME_DIR."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(directory))
    return directory


# --- other processes ----------------------------------------------------------------------------------------


class Peer(subprocess.Popen[str]):
    """A Python process that runs a script of a test and talks to it line by line."""

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
        """The next line of its standard output. Fails with its standard error where there is none."""
        assert self.stdout is not None
        assert select.select([self.stdout], [], [], timeout)[0], f"silent for {timeout} s; {self.error()}"
        line = self.stdout.readline()
        assert line, f"ended with status {self.wait(timeout)}: {self.error()}"
        return line.rstrip("\n")

    def say(self, line: str = "") -> None:
        assert self.stdin is not None
        self.stdin.write(line + "\n")

    def end(self, timeout: float = 60) -> str:
        """Closes its standard input and waits until it ends well; gives what it still had to say."""
        try:
            out, _ = self.communicate(timeout=timeout)
        finally:
            self.kill()
        assert self.returncode == 0, f"status {self.returncode}: {self.error()}"
        return out

    def crash(self) -> None:
        """SIGKILL, and it is gone."""
        self.kill()
        self.wait()


@pytest.fixture
def peer(runtime_dir: Path, prefix: str) -> Iterator[Callable[..., Peer]]:
    """`peer(script, ...)` starts a process of the test's own prefix: sys.argv[1] is that, then the arguments.

    None outlives the test.
    """
    with contextlib.ExitStack() as undo:

        def start(script: str, *arguments: object) -> Peer:
            started = undo.enter_context(Peer(script, prefix, *arguments))
            undo.callback(started.kill)
            return started

        yield start


@pytest.fixture
def primary(runtime_dir: Path, prefix: str) -> Iterator[eal.Eal]:
    """This process as primary of the test's own prefix, on tmpfs."""
    import eal

    with eal.init(["--no-pci"], file_prefix=prefix, proc_type="primary", no_huge=True) as made:
        yield made


# --- hugepages ----------------------------------------------------------------------------------------------


@pytest.fixture
def hugepages(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`hugepages(count, page_size=2 MiB)`: a private hugetlbfs that has exactly so many pages, all free.

    Gives the mount point. Mount and pages are taken back when the test ends, however it ends.
    """
    with contextlib.ExitStack() as undo:
        numbers = itertools.count()

        def take(count: int, page_size: int = 2 * MIB) -> Path:
            if os.geteuid() != 0:
                pytest.skip("hugepages need root")
            raise_free_pages(undo, count, page_size)
            return mount_hugetlbfs(undo, tmp_path / f"huge{next(numbers)}", count, page_size)

        yield take


def raise_free_pages(undo: contextlib.ExitStack, count: int, page_size: int) -> None:
    """Makes the kernel hold `count` pages that nobody has asked for; `undo` puts its number of pages back."""
    pool = Path(f"/sys/kernel/mm/hugepages/hugepages-{page_size // 1024}kB")
    if not pool.is_dir():
        pytest.skip(f"this kernel has no hugepages of {page_size // MIB} MiB")

    def read(name: str) -> int:
        return int((pool / f"{name}_hugepages").read_text())

    before = read("nr")
    lacking = count - (read("free") - read("resv"))
    if lacking > 0:
        undo.callback((pool / "nr_hugepages").write_text, str(before))
        (pool / "nr_hugepages").write_text(str(before + lacking))
        if (got := read("nr") - before) < lacking:
            pytest.skip(f"the kernel gave {got} of {lacking} hugepages of {page_size // MIB} MiB")


def mount_hugetlbfs(undo: contextlib.ExitStack, directory: Path, count: int, page_size: int) -> Path:
    directory.mkdir()
    total = count * page_size
    # min_size: the pages are this mount's from now on, whatever else the machine does. size: and no more.
    options = f"pagesize={page_size // MIB}M,size={total},min_size={total}"
    mount = ["mount", "-t", "hugetlbfs", "-o", options, "none", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no hugetlbfs can be mounted here: {done.stderr.strip()}")
    undo.callback(unmount, directory)
    return directory


def unmount(directory: Path) -> None:
    # Lazily: a mapping that a failed test still holds must not keep the mount.
    subprocess.run(["umount", "--lazy", directory], check=True)
