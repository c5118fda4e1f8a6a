# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem demo` as a process: its output, the detection of faults, its run time, and the removal of its files."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eal.runtime.prefix_dir import file_stem

NOBODY_UID = 65534
IVSHMEM = [str(Path(sys.executable).with_name("ivshmem"))]
EMULATED_LIMIT = 10.0  # seconds
OBJECTS = {
    "memzones": ["MP_demo_pool", "RG_demo_to_guest", "RG_demo_to_host", "demo_control"],
    "rings": ["demo_to_guest", "demo_to_host"],
    "mempools": ["demo_pool"],
}
in_vm = pytest.param(["--vm"], marks=pytest.mark.vm, id="vm")
emulated = pytest.param([], id="emulated")


@dataclass
class Run:
    status: int
    output: str
    errors: str
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        assert self.output, f"status {self.status}: {self.errors}"
        found: dict[str, Any] = json.loads(self.output)
        return found


class Demo:
    """Runs `ivshmem demo` with private directories and checks that no file is left in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *options: str, command: Sequence[str] = IVSHMEM, **env: str) -> Run:
        begin = time.monotonic()
        done = subprocess.run(
            [*command, "demo", *options], capture_output=True, text=True, timeout=240, env={**os.environ, **env}
        )
        seconds = time.monotonic() - begin
        assert self.remaining_files() == []
        return Run(done.returncode, done.stdout, done.stderr, seconds)

    def remaining_files(self) -> list[Path]:
        files = [path for path in self.folder.rglob("*") if not path.is_dir()]
        stems = {file_stem(self.folder / "run"), file_stem(self.folder / f"tmp/ivshmem-{NOBODY_UID}")}
        of_nobody = {stem.replace(f".{os.geteuid()}.", f".{NOBODY_UID}.") for stem in stems}
        return files + [path for stem in stems | of_nobody for path in Path("/dev/shm").glob(f"{stem}.*")]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("EAL_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return Demo(tmp_path)


def check_report(report: dict[str, Any], messages: int, size: int) -> None:
    assert report["ok"]
    assert report["faults"] == []
    assert (report["messages"], report["size"], report["answered"]) == (messages, size, messages)
    assert (report["lost"], report["reordered"], report["corrupted"]) == (0, 0, 0)
    assert report["pool_available"] == report["pool_size"] > 0
    assert report["rate"] == pytest.approx(messages / report["seconds"])
    assert report["bytes_per_second"] == pytest.approx(report["rate"] * size)

    created, guest, options = report["created"], report["guest"], shlex.split(report["cmdline"])
    assert {"demo_control", "demo_pool", "demo_to_guest", "demo_to_host", "metadata", "file_prefix"} == set(created)
    assert {kind: guest[kind] for kind in OBJECTS} == OBJECTS
    assert [device["metadata"] for device in guest["devices"]] == [created["metadata"]]
    assert re.fullmatch(r"0000:[0-9a-f]{2}:[0-9a-f]{2}\.0", guest["devices"][0]["address"])
    assert (guest["received"], guest["faults"], guest["rejected"]) == (messages, [], [])
    assert options[::2] == ["-device", *["-object", "-device"] * 2]  # a bridge, and two devices on it
    assert all(text in report["cmdline"] for text in ("memory-backend-file,", "share=on", "ivshmem-plain,"))


@pytest.mark.parametrize("where", [emulated, in_vm])
def test_demo_json_contains_the_whole_result(demo: Demo, where: list[str]) -> None:
    run = demo("--json", "--messages", "5000", "--size", "200", *where)
    assert run.status == 0, run.errors
    assert run.report["mode"] == ("vm" if where else "emulated")
    check_report(run.report, 5000, 200)


def test_demo_text_with_default_options(demo: Demo) -> None:
    run = demo()
    assert run.status == 0, run.errors
    assert run.seconds < EMULATED_LIMIT
    for part in (
        r"^created:\n",
        r"\n  demo_pool: mempool of \d+ objects of 80 bytes\n",
        r"\n  demo_to_guest: ring of \d+ elements of 4 bytes\n",
        r"\nQEMU options:\n  -device pci-bridge,\S+ -object memory-backend-file,\S+ -device ivshmem-plain,",
        r"\nthe guest \(emulated\) found metadata 'demo\d+' on 0000:00:\S+:\n  MP_demo_pool, .*demo_control",
        r"\n100000 of 100000 messages of 64 bytes in [\d.]+ s: [\d,]+ messages/s, [\d.,]+ MB/s",
        r"\nlost 0, reordered 0, corrupted 0; (\d+) of \1 objects free in the pool\n",
        r"\nOK\n$",
    ):
        assert re.search(part, run.output), (part, run.output)


COUNTERS = {
    "corrupt": {"corrupted": 1, "lost": 0, "reordered": 0},
    "drop": {"corrupted": 0, "lost": 1, "reordered": 0},
    "swap": {"corrupted": 0, "lost": 0, "reordered": 1},
}
HOST_FAULTS = {
    "corrupt": "message 1000 arrived with a wrong checksum",
    "drop": "1 messages were not answered",
    "swap": "answer 1000 arrived, expected 999",
}
GUEST_FAULTS = {
    "corrupt": "message 1000 is corrupted",
    "drop": "message 1000 is missing: 1001 arrived",
    "swap": "message 999 arrived after 1000",
}


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        pytest.param("corrupt", [], id="corrupt"),
        pytest.param("drop", [], id="drop"),
        pytest.param("swap", [], id="swap"),
        pytest.param("swap", ["--vm"], id="swap-vm", marks=pytest.mark.vm),
    ],
)
def test_injected_fault_is_detected_by_host_and_guest(demo: Demo, fault: str, where: list[str]) -> None:
    run = demo("--json", "--messages", "2000", "--fault", fault, *where)
    report = run.report
    assert run.status == 1
    assert not report["ok"]
    assert {name: report[name] for name in COUNTERS[fault]} == COUNTERS[fault]
    assert report["answered"] == 2000 - COUNTERS[fault]["lost"]
    assert report["pool_available"] == report["pool_size"]
    assert HOST_FAULTS[fault] in report["faults"]
    assert GUEST_FAULTS[fault] in report["guest"]["faults"]


def test_demo_text_shows_injected_fault(demo: Demo) -> None:
    run = demo("--messages", "2000", "--fault", "corrupt")
    assert run.status == 1
    assert "lost 0, reordered 0, corrupted 1;" in run.output
    assert "FAULT: message 1000 arrived with a wrong checksum" in run.output
    assert "\nOK\n" not in run.output


# --- unprivileged user --------------------------------------------------------------------------------------


def copy_distribution(name: str, to: Path, done: set[str]) -> None:
    """Copy an installed distribution and its dependencies into another site-packages directory."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # only required on other systems
    done.add(name)
    for file in found.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = to / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target)
    for line in found.requires or ():
        required = re.split(r"[^\w.-]", line)[0]
        if "extra ==" not in line and required not in done:
            copy_distribution(required, to, done)


@pytest.fixture(scope="session")
def shared_python() -> Iterator[Path]:
    """A Python with this project that every user may run; that of the tests may be in a directory private to root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        system = shutil.which(version, path="/usr/bin:/usr/local/bin")
        if system is None:
            pytest.skip(f"no {version} in /usr/bin that every user may run")
        subprocess.run([system, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        copy_distribution("ivshmem", folder / "venv/lib" / version / "site-packages", set())
        yield folder / "venv/bin/python"


@pytest.mark.root
def test_demo_runs_as_unprivileged_user(shared_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY_UID, NOBODY_UID)
        monkeypatch.delenv("EAL_RUNTIME_DIR", raising=False)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        user = ["setpriv", f"--reuid={NOBODY_UID}", f"--regid={NOBODY_UID}", "--clear-groups"]
        python = [str(shared_python), "-P", "-c", "from ivshmem.cli import main; main()"]
        (Path(name) / "tmp").mkdir()
        os.chown(Path(name) / "tmp", NOBODY_UID, NOBODY_UID)
        run = Demo(Path(name))("--json", command=[*user, *python], TMPDIR=f"{name}/tmp", HOME="/nonexistent")
    assert run.status == 0, run.errors
    assert run.seconds < EMULATED_LIMIT
    check_report(run.report, 100_000, 64)
    assert f"/dev/shm/ivshmem.{NOBODY_UID}." in run.report["cmdline"]
