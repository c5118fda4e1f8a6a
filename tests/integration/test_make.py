# SPDX-License-Identifier: BSD-3-Clause
"""make: what it names as missing, when it builds anew, and what its exit status counts.

The scripts run for real, in a small checkout of their own, with stand-ins for the programs around them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDS = ROOT / "tools" / "needs.sh"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
REAL_PYTHON = shlex.quote(sys.executable)


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


# --- needs.sh: what is missing ------------------------------------------------------------------------------


class Machine:
    """A PATH that has what a complete machine has, until a test takes something away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sh", "git", "make", "cc", "sed", "grep"):
            self.link(name, shutil.which(name))
        self.link("python3", sys.executable)
        self.has("apt-get", "exit 9")
        self.has("id", "echo 0")

    def link(self, name: str, target: str | None) -> None:
        assert target, f"{name} is not on this machine"
        (self.folder / name).symlink_to(target)

    def has(self, name: str, script: str = "exit 0") -> None:
        write_program(self.folder / name, script)

    def lacks(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()

    def needs(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [NEEDS, *arguments],
            env={"PATH": str(self.folder), **environment},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Machine(folder)


def test_a_complete_machine_is_told_nothing(machine: Machine) -> None:
    run = machine.needs("build")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_every_lack_is_named_with_its_command(machine: Machine) -> None:
    machine.lacks("git", "make", "cc", "python3")
    run = machine.needs("build")
    assert run.returncode == 1
    assert "git: apt-get install git\n" in run.stderr
    assert "make: apt-get install make\n" in run.stderr
    assert "headers of the C library: apt-get install gcc libc6-dev\n" in run.stderr
    assert "(python3 is not there): apt-get install python3 python3-dev python3-venv\n" in run.stderr


def test_without_apt_dnf_is_named_and_sudo_for_a_plain_user(machine: Machine) -> None:
    machine.lacks("git", "cc", "apt-get")
    machine.has("id", "echo 1000")
    run = machine.needs("build")
    assert "git: sudo dnf install git\n" in run.stderr
    assert "sudo dnf install gcc glibc-devel\n" in run.stderr


def test_a_compiler_without_the_c_headers_is_none(machine: Machine) -> None:
    machine.has("cc", 'echo "stdio.h: No such file" >&2; exit 1')
    assert "gcc libc6-dev" in machine.needs("build").stderr
    machine.has("mycc")
    assert machine.needs("build", CC="mycc -m64").returncode == 0


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("Python.h", f"apt-get install {PYTHON}-dev"),
        ("ensurepip", f"apt-get install {PYTHON}-venv"),
    ],
)
def test_the_interpreter_in_use_is_the_one_looked_at(machine: Machine, module: str, command: str) -> None:
    machine.has("other", f'case "$*" in *{module}*) exit 1 ;; *) exec {REAL_PYTHON} "$@" ;; esac')
    assert machine.needs("build").returncode == 0
    run = machine.needs("build", PYTHON="other")
    assert run.returncode == 1
    assert f"of {machine.folder}/other: {command}\n" in run.stderr


def test_an_old_python_is_refused_and_a_newer_one_pointed_at(machine: Machine) -> None:
    machine.lacks("python3")
    machine.has("python3", "exit 1")
    assert "apt-get install python3.11 python3.11-dev python3.11-venv" in machine.needs("build").stderr
    machine.has("python3.13", 'echo "pyenv: python3.13: command not found" >&2; exit 127')
    machine.link("python3.12", sys.executable)
    assert "(python3 is older, or does not run): make PYTHON=python3.12\n" in machine.needs("build").stderr
    assert machine.needs("build", PYTHON="python3.12").returncode == 0


DPDK = "exit 0"  # pkg-config finds libdpdk
NO_DPDK = 'case "$1" in --exists) exit 1 ;; esac'


def test_nothing_is_installed_where_nothing_is_missing(machine: Machine, tmp_path: Path) -> None:
    machine.has("apt-get", f"touch {tmp_path}/called; exit 9")
    machine.has("pkg-config", DPDK)
    run = machine.needs("install", "dpdk")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not (tmp_path / "called").exists()


def test_root_gets_just_what_is_missing(machine: Machine, tmp_path: Path) -> None:
    bring = f'printf "#!/bin/sh\\n" >{machine.folder}/pkg-config'
    machine.has("pkg-config", NO_DPDK)
    machine.has("apt-get", f'echo "$@" >>{tmp_path}/log; {bring}')
    assert machine.needs("install", "dpdk").returncode == 0
    [call] = (tmp_path / "log").read_text().splitlines()
    assert call.startswith("install -y")
    assert call.endswith(" libdpdk-dev")
    assert machine.needs("missing", "dpdk").returncode == 0


def test_package_lists_are_fetched_when_apt_knows_no_package(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    bring = f'printf "#!/bin/sh\\n" >{machine.folder}/pkg-config'
    machine.has("pkg-config", NO_DPDK)
    machine.has("apt-get", f'echo "$1" >>{log}; grep -q update {log} || exit 100; {bring}')
    assert machine.needs("install", "dpdk").returncode == 0
    assert log.read_text().split() == ["install", "update", "install"]


def test_a_plain_user_is_told_what_to_install(machine: Machine) -> None:
    machine.has("id", "echo 1000")
    run = machine.needs("install", "dpdk")
    assert run.returncode == 0
    assert "sudo apt-get install libdpdk-dev pkg-config\n" in run.stderr
    run = machine.needs("missing", "dpdk")
    assert run.returncode == 1
    assert run.stdout == "libdpdk-dev pkg-config (sudo apt-get install libdpdk-dev pkg-config)\n"


def test_a_busybox_that_needs_libraries_is_no_use_in_an_initramfs(machine: Machine) -> None:
    machine.has("busybox")
    machine.has("ldd", "exit 1")  # "not a dynamic executable"
    assert "busybox" not in machine.needs("missing", "vm").stdout
    machine.has("ldd", "exit 0")
    assert "busybox-static" in machine.needs("missing", "vm").stdout


# --- venv.sh: when it builds --------------------------------------------------------------------------------

# Makes "environments" that are this very program, notes what pip is asked for, and is else a real Python.
STAND_IN = f"""
case "$*" in
*'-m venv'*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >>"$LOG" ;;
*'-m pip'*--requirement*) echo requirements >>"$LOG" ;;
*'-m pip'*) echo "package" >>"$LOG"; exit "${{PIP_STATUS:-0}}" ;;
*base_prefix*) echo "NAME 3.11" ;;
*) exec {REAL_PYTHON} "$@" ;;
esac
"""
ALL = ["venv", "requirements", "package"]


class Checkout:
    """A checkout of two files and the real scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.log = folder / "log"
        self.python = self.interpreter(folder, "one")
        for name, text in {"eal/ring.py": "a = 1\n", "native/src/ring.c": "int a;\n"}.items():
            self.write(name, text)
        shutil.copytree(NEEDS.parent, self.folder / "tools")
        for name in ("pyproject.toml", "Makefile"):
            shutil.copy(ROOT / name, self.folder)

    def interpreter(self, folder: Path, name: str) -> str:
        write_program(folder / name, STAND_IN.replace("NAME", name))
        return str(folder / name)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def venv(self, *extras: str, **environment: str) -> list[str]:
        """What venv.sh did this time."""
        self.log.write_text("")
        environment = {**os.environ, "LOG": str(self.log), "PYTHON": self.python, **environment}
        command = [str(self.folder / "tools" / "venv.sh"), *extras]
        self.run = subprocess.run(command, env=environment, capture_output=True, text=True)
        return self.log.read_text().split()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path)
    assert checkout.venv() == ALL, checkout.run.stderr
    yield checkout
    assert checkout.venv() == [], "nothing was changed, and yet something was built"


def test_a_second_run_starts_at_once(checkout: Checkout) -> None:
    times = []
    for _ in range(5):  # the best of them, since other tests run beside this one
        begin = time.monotonic()
        assert checkout.venv() == []
        times.append(time.monotonic() - begin)
    assert min(times) < 0.3
    assert checkout.run.stderr == ""


@pytest.mark.parametrize("name", ["eal/ring.py", "native/src/ring.c", "eal/new.py", "native/include/new.h"])
def test_an_edited_or_added_file_is_built(checkout: Checkout, name: str) -> None:
    checkout.write(name, "/* new */\n")
    assert checkout.venv() == ["package"]


def test_a_removed_file_and_one_put_back_with_its_old_date_are_seen(checkout: Checkout) -> None:
    source = checkout.folder / "eal" / "ring.py"
    text, date = source.read_text(), source.stat().st_mtime
    source.unlink()
    assert checkout.venv() == ["package"]
    source.write_text(text.replace("1", "2"))
    os.utime(source, (date, date))
    assert checkout.venv() == ["package"]


def test_what_python_caches_and_what_is_merely_touched_is_not_built(checkout: Checkout) -> None:
    checkout.write("eal/__pycache__/ring.cpython-311.pyc", "x")
    (checkout.folder / "eal" / "ring.py").touch()
    assert checkout.venv() == []


def test_an_extra_is_installed_once(checkout: Checkout) -> None:
    assert checkout.venv("test") == ["requirements"]
    assert "pytest" in (checkout.folder / ".venv/state/requirements.txt").read_text()
    assert checkout.venv("test") == []
    assert checkout.venv() == []


def test_changed_requirements_are_installed(checkout: Checkout) -> None:
    settings = checkout.folder / "pyproject.toml"
    settings.write_text(settings.read_text().replace("numpy>=1.26", "numpy>=2.0"))
    assert checkout.venv() == ["requirements", "package"]


def test_a_failed_build_is_tried_again(checkout: Checkout) -> None:
    checkout.write("eal/ring.py", "b = 1\n")
    assert checkout.venv(PIP_STATUS="1") == ["package"]
    assert checkout.run.returncode != 0
    assert checkout.venv() == ["package"]


def test_a_moved_checkout_gets_a_venv_of_its_own(checkout: Checkout, tmp_path: Path) -> None:
    checkout.folder = checkout.folder.rename(tmp_path / "moved")
    assert checkout.venv() == ALL


def test_another_python_gets_a_venv_of_its_own(checkout: Checkout, tmp_path: Path) -> None:
    other = checkout.interpreter(tmp_path, "two")
    assert checkout.venv(PYTHON=other) == ALL
    assert checkout.venv(PYTHON="") == [], "when none is named, the venv that is there will do"
    checkout.python = other


def test_a_venv_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    (checkout.folder / ".venv" / "bin" / "python").unlink()
    assert checkout.venv() == ALL


def test_what_is_missing_is_named_before_anything_is_done(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.venv(CC="no-such-compiler") == []
    assert checkout.run.returncode == 1
    assert "a C compiler" in checkout.run.stderr
    assert not (checkout.folder / ".venv").exists()


# --- test.sh, .ci/run and the Makefile: what they count -----------------------------------------------------


@pytest.mark.parametrize(
    ("parallel", "serial", "status"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (5, 0, 0), (0, 5, 0), (5, 5, 5), (5, 1, 1), (1, 5, 1)],
)
def test_both_runs_count(tmp_path: Path, parallel: int, serial: int, status: int) -> None:
    assert run_tests(tmp_path, parallel, serial).returncode == status


def test_the_second_run_is_left_out_when_the_first_could_not_start(tmp_path: Path) -> None:
    assert run_tests(tmp_path, 2, 0).returncode == 2
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_arguments_and_strictness_reach_both_runs(tmp_path: Path) -> None:
    run_tests(tmp_path, 0, 0, "-k", "a or b", STRICT="1")
    parallel, serial = (tmp_path / "log").read_text().splitlines()
    assert parallel.endswith("|-m|not serial|--no-skips|-k|a or b|")
    assert serial == "-m|serial|--no-skips|-k|a or b|"
    (tmp_path / "log").unlink()
    run_tests(tmp_path, 0, 0, STRICT="")
    assert "--no-skips" not in (tmp_path / "log").read_text()


def run_tests(
    folder: Path, parallel: int, serial: int, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """tools/test.sh with a pytest that notes its arguments and ends with the given statuses."""
    (folder / "tools").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tools" / "test.sh", folder / "tools")
    note = f'printf "%s|" "$@" >>{folder}/log; echo >>{folder}/log'
    statuses = f'case "$*" in *"not serial"*) exit {parallel} ;; *) exit {serial} ;; esac'
    write_program(folder / ".venv" / "bin" / "pytest", f"{note}\n{statuses}")
    command = [str(folder / "tools" / "test.sh"), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.parametrize("failing", ["", "test", "lint"])
def test_ci_runs_tests_and_linters_and_counts_both(tmp_path: Path, failing: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    write_program(tmp_path / "bin" / "make", f'echo "$@" >>log; cat; [ "$1" != "{failing}" ]')
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    run = subprocess.run([tmp_path / ".ci" / "run"], env=environment, stdin=subprocess.DEVNULL)
    assert run.returncode == (1 if failing else 0)
    assert (tmp_path / "log").read_text().splitlines() == ["test STRICT=1", "lint"]


def test_make_alone_lists_every_target() -> None:
    make = subprocess.run(["make", "-C", ROOT, "--no-print-directory"], capture_output=True, text=True)
    [phony] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")]
    listed = [line.split()[1] for line in make.stdout.splitlines()]
    assert listed == phony.split()[1:]
    assert all(len(line.split()) > 2 for line in make.stdout.splitlines())
