# SPDX-License-Identifier: BSD-3-Clause
"""Unprivileged user: an Eal of user nobody works in the runtime directory of that user and in no other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

import eal

NOBODY = 65534
# setpriv keeps root's file access until it executes env; env then searches for the program without that access.
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "/usr/bin/env"]

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("nonroot")]  # one worker, one copy of the packages

SCRIPT = """
import os, stat, sys
import eal
made = eal.init(file_prefix=sys.argv[1], no_huge=True)
ring = eal.ring_create("ring", 8)
zone = eal.memzone_reserve("zone", 100)
found = os.stat(zone.segment.path)
print(os.geteuid(), made.proc_type, made.directory.root, oct(os.stat(made.directory.root).st_mode & 0o7777))
print(os.path.basename(zone.segment.path).split(".")[:2], found.st_uid, oct(found.st_mode & 0o7777))
"""


def interpreter() -> str:
    """Return a Python of the same version that user nobody may execute; sys.executable may be in the home of root."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        command = [*AS_NOBODY, candidate, "-Ic", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True)
        if done.stdout.strip() == version:
            return candidate
    pytest.skip(f"no Python {version} that user nobody may execute")


def files_of(name: str, seen: set[str]) -> Iterator[tuple[Path, Path]]:
    """Yield the files of a distribution and its requirements as pairs (path, path relative to site-packages)."""
    seen.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:  # a requirement of another platform or version
        return
    for file in found.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            yield Path(str(file.locate())), Path(file)
    for requirement in found.requires or []:
        required = re.split(r"[^\w.-]", requirement)[0]
        if "extra ==" not in requirement and required not in seen:
            yield from files_of(required, seen)


@pytest.fixture(scope="module")
def packages() -> Iterator[Path]:
    """Copy the installed package and its requirements to a world-readable directory."""
    with tempfile.TemporaryDirectory(prefix="ivshmem-packages-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for source, place in files_of("ivshmem", set()):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / place)
        yield folder


@dataclass
class User:
    """User nobody, with a home directory and the minimal environment of a login."""

    python: str
    packages: Path
    home: Path

    def run(self, script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [*AS_NOBODY, self.python, "-c", textwrap.dedent(script), *map(str, arguments)]
        home, path = str(self.home), str(self.packages)
        env = {"PATH": "/usr/bin:/bin", "HOME": home, "TMPDIR": home, "PYTHONPATH": path, **variables}
        return subprocess.run(command, env=env, cwd=self.home, capture_output=True, text=True, timeout=60)

    def output_lines(self, script: str, *arguments: object, **variables: str) -> list[str]:
        done = self.run(script, *arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def folder(self, name: str, mode: int = 0o700, uid: int = NOBODY) -> Path:
        made = self.home / name
        made.mkdir()
        made.chmod(mode)
        os.chown(made, uid, uid)
        return made


@pytest.fixture
def nobody(packages: Path) -> Iterator[User]:
    home = Path(tempfile.mkdtemp(prefix="ivshmem-home-"))
    os.chown(home, NOBODY, NOBODY)
    yield User(interpreter(), packages, home)
    shutil.rmtree(home)


def test_runtime_directory_is_in_xdg_runtime_dir(nobody: User, prefix: str) -> None:
    session = nobody.folder("session")
    lines = nobody.output_lines(SCRIPT, prefix, XDG_RUNTIME_DIR=str(session))
    assert lines == [
        f"{NOBODY} primary {session}/ivshmem 0o700",
        f"['ivshmem', '{NOBODY}'] {NOBODY} 0o600",
    ]
    assert list((session / "ivshmem").iterdir()) == []


def test_runtime_directory_without_session_is_in_tmpdir(nobody: User, prefix: str) -> None:
    lines = nobody.output_lines(SCRIPT, prefix)
    assert lines[0] == f"{NOBODY} primary {nobody.home}/ivshmem-{NOBODY} 0o700"
    assert list((nobody.home / f"ivshmem-{NOBODY}").iterdir()) == []


def test_primary_and_secondary_of_unprivileged_user_exchange_objects(nobody: User, prefix: str) -> None:
    script = """
    import subprocess, sys
    import eal
    eal.init(file_prefix=sys.argv[1], no_huge=True)
    ring, pool = eal.ring_create("ring", 8), eal.mempool_create("pool", 16, 8, cache_size=4)
    other = (
        "import sys, eal; eal.init(file_prefix=sys.argv[1], proc_type='secondary', no_huge=True);"
        "eal.ring_lookup('ring').enqueue(eal.mempool_lookup('pool').get())"
    )
    subprocess.run([sys.executable, "-c", other, sys.argv[1]], check=True)
    pool.put(ring.dequeue())
    print(pool.available)
    """
    assert nobody.output_lines(script, prefix) == ["16"]


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "EAL_RUNTIME_DIR", None])
@pytest.mark.parametrize(
    ("mode", "uid", "message"),
    [
        (0o700, 0, "must belong to user 65534, not to user 0"),
        (0o755, 0, "must belong to user 65534, not to user 0"),
        (0o777, NOBODY, "must not be writable by other users"),
        (0o1777, 0, "must belong to user 65534, not to user 0"),
    ],
)
def test_unsafe_runtime_directory_raises_denied(
    nobody: User, prefix: str, variable: str | None, mode: int, uid: int, message: str
) -> None:
    names = {"XDG_RUNTIME_DIR": "ivshmem", "EAL_RUNTIME_DIR": "given", None: f"ivshmem-{NOBODY}"}
    folder = nobody.folder(names[variable], mode, uid)
    variables = {"XDG_RUNTIME_DIR": str(nobody.home), "EAL_RUNTIME_DIR": str(folder)}
    done = nobody.run(SCRIPT, prefix, **({variable: variables[variable]} if variable else {}))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "Denied" in last
    assert message in last
    assert str(folder) in last
    assert list(folder.iterdir()) == []


def test_segment_of_other_owner_raises_denied(nobody: User, prefix: str) -> None:
    script = """
    import sys, eal
    with eal.init(file_prefix=sys.argv[1], no_huge=True) as made:
        for keywords in ({"user": "root"}, {"user_group": 0}):
            try:
                made.segment_create(1 << 21, **keywords)
            except eal.Denied as error:
                print("Denied", made.segments())
        print(oct(__import__("os").stat(made.segment_create(1 << 21, mode=0o666).path).st_mode & 0o777))
    """
    assert nobody.output_lines(script, prefix) == ["Denied []", "Denied []", "0o666"]


def test_same_prefix_of_two_users_is_separate(nobody: User, prefix: str, primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("zone", 64)
    lines = nobody.output_lines(SCRIPT + "print(len(eal.memzones()))", prefix)
    assert lines[0].startswith(f"{NOBODY} primary ")
    assert lines[2] == "2"
    assert os.path.exists(zone.segment.path)
    assert primary.memzone_lookup("zone") is zone


def test_restart_of_unprivileged_user_removes_files_of_killed_process(nobody: User, prefix: str) -> None:
    done = nobody.run(SCRIPT + "os.kill(os.getpid(), 9)", prefix)
    assert done.returncode == -9
    left = [name for name in os.listdir("/dev/shm") if f".{prefix}." in name]
    assert len(left) == 1
    nobody.output_lines(SCRIPT, prefix)
    assert [name for name in os.listdir("/dev/shm") if f".{prefix}." in name] == []
