# SPDX-License-Identifier: BSD-3-Clause
"""Rules of the repository: cheap imports, a first line in each file that states its content, a complete wheel."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tools", "ivshmem", "eal")


def sources(*patterns: str) -> list[Path]:
    """Return the files of the checkout that git tracks or would add, relative to its root."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({Path(name) for name in names if name and (ROOT / name).is_file()})


# --- the installed package ----------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["eal", "ivshmem"])
def test_import_loads_no_heavy_module(package: str) -> None:
    """`cpu-layout` and `ivshmem --help` start without delay: numpy alone takes 0.1 s to import."""
    program = f"import {package}, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert package in loaded
    assert loaded.isdisjoint({"numpy", "pyudev", "_cffi_backend", "eal._native", "rich", "click"})


def test_tests_import_the_installed_package() -> None:
    import eal

    assert Path(eal.__file__).is_relative_to(sysconfig.get_path("platlib"))


# --- first lines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_python_file_begins_with_a_docstring(package: str) -> None:
    without = []
    for name in sources(f"{package}/*.py"):
        docstring = ast.get_docstring(ast.parse((ROOT / name).read_text()), clean=False)
        if not docstring or not docstring.split("\n")[0].strip():
            without.append(name)
    assert sources(f"{package}/*.py")
    assert without == []


def test_c_file_begins_with_a_comment() -> None:
    names = sources("native/*.c", "native/*.h")
    assert names
    assert [name for name in names if not (ROOT / name).read_text().startswith(("/*", "//"))] == []


# --- the wheel ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build the wheel of this checkout with the tools of this environment."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    settings = [f"--config-settings=build-dir={directory / 'build'}", "--wheel-dir", str(directory)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    build = subprocess.run(
        [*pip, *settings, str(ROOT)], env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert build.returncode == 0, build.stdout + build.stderr
    [file] = directory.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def info(wheel: zipfile.ZipFile, name: str) -> str:
    return wheel.read(f"ivshmem-{project()['version']}.dist-info/{name}").decode()


def project() -> dict[str, str]:
    settings: dict[str, dict[str, str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return settings["project"]


@pytest.mark.xdist_group("wheel")  # one worker builds it once
class TestWheel:
    def test_contains_every_source_file_and_nothing_else(self, wheel: zipfile.ZipFile) -> None:
        expected = {str(name): name for name in sources("eal", "ivshmem")}
        headers = Path("native/include")
        expected |= {f"eal/include/{name.relative_to(headers)}": name for name in sources(str(headers))}
        expected |= {f"eal/include/src/{name.name}": name for name in sources("native/src")}
        assert {"eal/py.typed", "ivshmem/py.typed", "eal/include/layout.h"} <= expected.keys()
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert packed - {"eal/_native.abi3.so", "eal/_methods.abi3.so"} == expected.keys()
        for name, source in expected.items():
            assert wheel.read(name) == (ROOT / source).read_bytes(), name

    def test_has_two_top_level_packages(self, wheel: zipfile.ZipFile) -> None:
        tops = {name.split("/")[0] for name in wheel.namelist()}
        assert tops == {"eal", "ivshmem", f"ivshmem-{project()['version']}.dist-info"}

    def test_supports_every_python_from_3_11(self, wheel: zipfile.ZipFile) -> None:
        # meson-python tags the wheel with the building Python; Py_LIMITED_API limits the core to the API of 3.11.
        builder = f"cp{sys.version_info.major}{sys.version_info.minor}"
        assert re.search(rf"^Tag: {builder}-abi3-linux_\w+$", info(wheel, "WHEEL"), re.MULTILINE)
        assert {"eal/_native.abi3.so", "eal/_methods.abi3.so"} <= set(wheel.namelist())
        assert wheel.filename
        commands = Path(wheel.filename).parent / "build" / "compile_commands.json"
        assert "-DPy_LIMITED_API=0x030b0000" in commands.read_text()

    def test_installs_the_commands(self, wheel: zipfile.ZipFile) -> None:
        commands = configparser.ConfigParser()
        commands.read_string(info(wheel, "entry_points.txt"))
        assert dict(commands["console_scripts"]) == {
            "ivshmem": "ivshmem.cli:main",
            "cpu-layout": "eal.topology:main",
        }

    def test_contains_the_licence(self, wheel: zipfile.ZipFile) -> None:
        assert info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()


def test_installed_commands_are_importable() -> None:
    entries = importlib.metadata.distribution("ivshmem").entry_points
    assert {entry.name for entry in entries} == {"ivshmem", "cpu-layout"}
    assert all(callable(entry.load()) for entry in entries)


def test_version_is_the_same_in_all_files() -> None:
    meson = re.search(r"^  version: '(.*)',$", (ROOT / "meson.build").read_text(), re.MULTILINE)
    assert meson
    assert meson[1] == project()["version"]
    assert f"\n## {project()['version']}" in (ROOT / "CHANGELOG.md").read_text()
