# SPDX-License-Identifier: BSD-3-Clause
"""make and its scripts: missing requirements, conditions for a rebuild, exit status.

The real scripts run in a small checkout with fake programs.
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


# --- needs.sh: missing requirements -------------------------------------------------------------------------


class Machine:
    """A PATH with all programs of a complete machine. Tests remove or replace programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sh", "git", "make", "cc", "sed", "grep"):
            self.link(name, shutil.which(name))
        self.link("python3", sys.executable)
        self.add("apt-get", "exit 9")
        self.add("id", "echo 0")

    def link(self, name: str, target: str | None) -> None:
        assert target, f"{name} is not installed"
        (self.folder / name).symlink_to(target)

    def add(self, name: str, script: str = "exit 0") -> None:
        write_program(self.folder / name, script)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()

    def run_needs(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
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


def test_needs_build_on_complete_machine_prints_nothing(machine: Machine) -> None:
    run = machine.run_needs("build")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_needs_build_lists_missing_programs_with_commands(machine: Machine) -> None:
    machine.remove("git", "make", "cc", "python3")
    run = machine.run_needs("build")
    assert run.returncode == 1
    assert "git: apt-get install git\n" in run.stderr
    assert "make: apt-get install make\n" in run.stderr
    assert "headers of the C library: apt-get install gcc libc6-dev\n" in run.stderr
    assert "(python3 not found): apt-get install python3 python3-dev python3-venv\n" in run.stderr


def test_needs_build_without_apt_names_dnf_and_sudo(machine: Machine) -> None:
    machine.remove("git", "cc", "apt-get")
    machine.add("id", "echo 1000")
    run = machine.run_needs("build")
    assert "git: sudo dnf install git\n" in run.stderr
    assert "sudo dnf install gcc glibc-devel\n" in run.stderr


def test_needs_build_requires_c_headers(machine: Machine) -> None:
    machine.add("cc", 'echo "stdio.h: No such file" >&2; exit 1')
    assert "gcc libc6-dev" in machine.run_needs("build").stderr
    machine.add("mycc")
    assert machine.run_needs("build", CC="mycc -m64").returncode == 0


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("Python.h", f"apt-get install {PYTHON}-dev"),
        ("ensurepip", f"apt-get install {PYTHON}-venv"),
    ],
)
def test_needs_build_checks_selected_interpreter(machine: Machine, module: str, command: str) -> None:
    machine.add("other", f'case "$*" in *{module}*) exit 1 ;; *) exec {REAL_PYTHON} "$@" ;; esac')
    assert machine.run_needs("build").returncode == 0
    run = machine.run_needs("build", PYTHON="other")
    assert run.returncode == 1
    assert f"of {machine.folder}/other: {command}\n" in run.stderr


def test_needs_build_with_old_python_names_newer_one(machine: Machine) -> None:
    machine.remove("python3")
    machine.add("python3", "exit 1")
    assert "apt-get install python3.11 python3.11-dev python3.11-venv" in machine.run_needs("build").stderr
    machine.add("python3.13", 'echo "pyenv: python3.13: command not found" >&2; exit 127')
    machine.link("python3.12", sys.executable)
    assert "(python3 is older or does not run): make PYTHON=python3.12\n" in machine.run_needs("build").stderr
    assert machine.run_needs("build", PYTHON="python3.12").returncode == 0


DPDK = "exit 0"  # pkg-config finds libdpdk
NO_DPDK = 'case "$1" in --exists) exit 1 ;; esac'


def test_needs_install_without_missing_packages_does_not_call_apt(machine: Machine, tmp_path: Path) -> None:
    machine.add("apt-get", f"touch {tmp_path}/called; exit 9")
    machine.add("pkg-config", DPDK)
    run = machine.run_needs("install", "dpdk")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not (tmp_path / "called").exists()


def test_needs_install_as_root_installs_missing_packages_only(machine: Machine, tmp_path: Path) -> None:
    install = f'printf "#!/bin/sh\\n" >{machine.folder}/pkg-config'
    machine.add("pkg-config", NO_DPDK)
    machine.add("apt-get", f'echo "$@" >>{tmp_path}/log; {install}')
    assert machine.run_needs("install", "dpdk").returncode == 0
    [call] = (tmp_path / "log").read_text().splitlines()
    assert call.startswith("install -y")
    assert call.endswith(" libdpdk-dev")
    assert machine.run_needs("missing", "dpdk").returncode == 0


def test_needs_install_updates_package_lists_after_failure(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    install = f'printf "#!/bin/sh\\n" >{machine.folder}/pkg-config'
    machine.add("pkg-config", NO_DPDK)
    machine.add("apt-get", f'echo "$1" >>{log}; grep -q update {log} || exit 100; {install}')
    assert machine.run_needs("install", "dpdk").returncode == 0
    assert log.read_text().split() == ["install", "update", "install"]


def test_needs_install_as_user_prints_command(machine: Machine) -> None:
    machine.add("id", "echo 1000")
    run = machine.run_needs("install", "dpdk")
    assert run.returncode == 0
    assert "sudo apt-get install libdpdk-dev pkg-config\n" in run.stderr
    run = machine.run_needs("missing", "dpdk")
    assert run.returncode == 1
    assert run.stdout == "libdpdk-dev pkg-config (sudo apt-get install libdpdk-dev pkg-config)\n"


def test_needs_requires_static_busybox(machine: Machine) -> None:
    machine.add("busybox")
    machine.add("ldd", "exit 1")  # "not a dynamic executable"
    assert "busybox" not in machine.run_needs("missing", "vm").stdout
    machine.add("ldd", "exit 0")
    assert "busybox-static" in machine.run_needs("missing", "vm").stdout


# --- venv.sh: conditions for a build ------------------------------------------------------------------------

# A fake python3: creates venvs that contain this program, logs calls of pip, and passes other calls to real Python.
FAKE_PYTHON = f"""
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
    """A checkout with two source files and the real scripts."""

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
        write_program(folder / name, FAKE_PYTHON.replace("NAME", name))
        return str(folder / name)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def venv(self, *extras: str, **environment: str) -> list[str]:
        """Run venv.sh and return its steps."""
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
    assert checkout.venv() == [], "venv.sh built something without a change"


def test_venv_second_run_takes_under_300_ms(checkout: Checkout) -> None:
    times = []
    for _ in range(5):  # take the fastest run, because other tests run in parallel
        begin = time.monotonic()
        assert checkout.venv() == []
        times.append(time.monotonic() - begin)
    assert min(times) < 0.3
    assert checkout.run.stderr == ""


@pytest.mark.parametrize("name", ["eal/ring.py", "native/src/ring.c", "eal/new.py", "native/include/new.h"])
def test_venv_edited_or_added_file_rebuilds_package(checkout: Checkout, name: str) -> None:
    checkout.write(name, "/* new */\n")
    assert checkout.venv() == ["package"]


def test_venv_removed_or_restored_file_rebuilds_package(checkout: Checkout) -> None:
    source = checkout.folder / "eal" / "ring.py"
    text, date = source.read_text(), source.stat().st_mtime
    source.unlink()
    assert checkout.venv() == ["package"]
    source.write_text(text.replace("1", "2"))
    os.utime(source, (date, date))
    assert checkout.venv() == ["package"]


def test_venv_cache_files_and_touched_files_do_not_rebuild(checkout: Checkout) -> None:
    checkout.write("eal/__pycache__/ring.cpython-311.pyc", "x")
    (checkout.folder / "eal" / "ring.py").touch()
    assert checkout.venv() == []


def test_venv_extra_is_installed_once(checkout: Checkout) -> None:
    assert checkout.venv("test") == ["requirements"]
    assert "pytest" in (checkout.folder / ".venv/state/requirements.txt").read_text()
    assert checkout.venv("test") == []
    assert checkout.venv() == []


def test_venv_changed_requirements_are_installed(checkout: Checkout) -> None:
    settings = checkout.folder / "pyproject.toml"
    settings.write_text(settings.read_text().replace("numpy>=1.26", "numpy>=2.0"))
    assert checkout.venv() == ["requirements", "package"]


def test_venv_failed_build_is_repeated(checkout: Checkout) -> None:
    checkout.write("eal/ring.py", "b = 1\n")
    assert checkout.venv(PIP_STATUS="1") == ["package"]
    assert checkout.run.returncode != 0
    assert checkout.venv() == ["package"]


def test_venv_moved_checkout_creates_new_venv(checkout: Checkout, tmp_path: Path) -> None:
    checkout.folder = checkout.folder.rename(tmp_path / "moved")
    assert checkout.venv() == ALL


def test_venv_other_interpreter_creates_new_venv(checkout: Checkout, tmp_path: Path) -> None:
    other = checkout.interpreter(tmp_path, "two")
    assert checkout.venv(PYTHON=other) == ALL
    assert checkout.venv(PYTHON="") == [], "without PYTHON the existing venv is kept"
    checkout.python = other


def test_venv_without_interpreter_is_created_again(checkout: Checkout) -> None:
    (checkout.folder / ".venv" / "bin" / "python").unlink()
    assert checkout.venv() == ALL


def test_venv_missing_requirement_fails_before_any_step(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.venv(CC="no-such-compiler") == []
    assert checkout.run.returncode == 1
    assert "a C compiler" in checkout.run.stderr
    assert not (checkout.folder / ".venv").exists()


# --- test.sh, .ci/run and the Makefile: exit status ---------------------------------------------------------


@pytest.mark.parametrize(
    ("parallel", "serial", "status"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (5, 0, 0), (0, 5, 0), (5, 5, 5), (5, 1, 1), (1, 5, 1)],
)
def test_test_sh_returns_status_of_both_runs(tmp_path: Path, parallel: int, serial: int, status: int) -> None:
    assert run_tests(tmp_path, parallel, serial).returncode == status


def test_test_sh_usage_error_skips_serial_run(tmp_path: Path) -> None:
    assert run_tests(tmp_path, 2, 0).returncode == 2
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_test_sh_passes_arguments_and_strict_to_both_runs(tmp_path: Path) -> None:
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
    """Run tools/test.sh with a fake pytest that logs its arguments and exits with the given statuses."""
    (folder / "tools").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tools" / "test.sh", folder / "tools")
    log = f'printf "%s|" "$@" >>{folder}/log; echo >>{folder}/log'
    statuses = f'case "$*" in *"not serial"*) exit {parallel} ;; *) exit {serial} ;; esac'
    write_program(folder / ".venv" / "bin" / "pytest", f"{log}\n{statuses}")
    command = [str(folder / "tools" / "test.sh"), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.parametrize("failing", ["", "test", "lint"])
def test_ci_runs_tests_and_linters_and_returns_their_status(tmp_path: Path, failing: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    write_program(tmp_path / "bin" / "make", f'echo "$@" >>log; cat; [ "$1" != "{failing}" ]')
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    run = subprocess.run([tmp_path / ".ci" / "run"], env=environment, stdin=subprocess.DEVNULL)
    assert run.returncode == (1 if failing else 0)
    assert (tmp_path / "log").read_text().splitlines() == ["test STRICT=1", "lint"]


def test_make_without_target_lists_all_targets() -> None:
    make = subprocess.run(["make", "-C", ROOT, "--no-print-directory"], capture_output=True, text=True)
    [phony] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")]
    listed = [line.split()[1] for line in make.stdout.splitlines()]
    assert listed == phony.split()[1:]
    assert all(len(line.split()) > 2 for line in make.stdout.splitlines())
