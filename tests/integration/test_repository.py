# SPDX-License-Identifier: BSD-3-Clause
"""The repository's own rules: imports go down only, each file says what it is, the wheel is complete."""

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
LAYERS = ("tools", "ivshmem", "eal")  # from the top down; the compiled core, eal._native, is below them all


def sources(*patterns: str) -> list[Path]:
    """The files of the checkout that git has, or would take, as paths relative to its root."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({Path(name) for name in names if name and (ROOT / name).is_file()})


# --- imports ------------------------------------------------------------------------------------------------


def imported_modules(path: Path, package: list[str]) -> Iterator[str]:
    """Every module that a file imports, at the top or in a function. `package` is what the file lies in."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = base + ([node.module] if node.module else [])
            yield from (".".join([*stem, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def upward_imports(root: Path) -> list[str]:
    """The imports below `root` that go from a layer to one above it, as "file imports module"."""
    faults = []
    for depth, layer in enumerate(LAYERS):
        for path in sorted((root / layer).rglob("*.py*")):
            if path.suffix not in (".py", ".pyi"):
                continue
            name = path.relative_to(root)
            for module in imported_modules(path, list(name.parent.parts)):
                if module.split(".")[0] in LAYERS[:depth]:
                    faults.append(f"{name} imports {module}")
    return faults


def test_imports_go_down_only() -> None:
    assert upward_imports(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "module"),
    [
        ("eal/init.py", "import ivshmem", "ivshmem"),
        ("eal/init.py", "import os, ivshmem.vmm.qemu as q", "ivshmem.vmm.qemu"),
        ("eal/init.py", "def f():\n    from ivshmem.vmm import qemu", "ivshmem.vmm.qemu"),
        ("eal/_native.pyi", "from ivshmem.vmm.qemu import plan", "ivshmem.vmm.qemu.plan"),
        ("eal/sub/deep.py", "if 0:\n    from tools.cpu_layout import main", "tools.cpu_layout.main"),
        ("ivshmem/cli.py", "import importlib\nimportlib.import_module('tools.x')", "tools.x"),
        ("ivshmem/guest/echo.py", "from ...tools import x", "tools.x"),
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, file: str, text: str, module: str) -> None:
    for name, allowed in {
        "tools/a.py": "import ivshmem.cli, eal, numpy",
        "ivshmem/a.py": "from eal.ring import ring\nfrom . import b\nfrom eal._native import lib",
        "eal/a.py": "import sys\nfrom .errors import Invalid\nfrom eal._native import lib",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(allowed)
    assert upward_imports(tmp_path) == []
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert upward_imports(tmp_path) == [f"{file} imports {module}"]


def test_importing_eal_loads_nothing_heavy() -> None:
    """`cpu-layout` starts in an instant: numpy alone takes 0.1 s to import."""
    program = "import eal, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "eal" in loaded
    assert loaded.isdisjoint({"numpy", "pyudev", "_cffi_backend", "eal._native", "rich", "click"})


def test_the_tests_run_the_installed_package() -> None:
    import eal

    assert Path(eal.__file__).is_relative_to(sysconfig.get_path("platlib"))


# --- every file says what it is -----------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_python_files_begin_with_a_docstring(layer: str) -> None:
    silent = []
    for name in sources(f"{layer}/*.py"):
        docstring = ast.get_docstring(ast.parse((ROOT / name).read_text()), clean=False)
        if not docstring or not docstring.split("\n")[0].strip():
            silent.append(name)
    assert sources(f"{layer}/*.py")
    assert silent == []


def test_c_files_begin_with_a_comment() -> None:
    names = sources("native/*.c", "native/*.h")
    assert names
    assert [name for name in names if not (ROOT / name).read_text().startswith(("/*", "//"))] == []


# --- the wheel ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel of this checkout, built with the tools of this environment."""
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


@pytest.mark.xdist_group("wheel")  # so that it is built once
class TestWheel:
    def test_holds_every_source_file_and_nothing_else(self, wheel: zipfile.ZipFile) -> None:
        expected = {str(name): name for name in sources("eal", "ivshmem")}
        headers = Path("native/include")
        expected |= {f"eal/include/{name.relative_to(headers)}": name for name in sources(str(headers))}
        expected |= {f"eal/include/src/{name.name}": name for name in sources("native/src")}
        assert {"eal/py.typed", "ivshmem/py.typed", "eal/include/layout.h"} <= expected.keys()
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert packed - {"eal/_native.abi3.so", "eal/_methods.abi3.so"} == expected.keys()
        for name, source in expected.items():
            assert wheel.read(name) == (ROOT / source).read_bytes(), name

    def test_has_two_packages_at_the_top(self, wheel: zipfile.ZipFile) -> None:
        tops = {name.split("/")[0] for name in wheel.namelist()}
        assert tops == {"eal", "ivshmem", f"ivshmem-{project()['version']}.dist-info"}

    def test_is_for_every_python_from_3_11(self, wheel: zipfile.ZipFile) -> None:
        # meson-python's tag starts at the Python that builds; the core itself keeps to what 3.11 has.
        builder = f"cp{sys.version_info.major}{sys.version_info.minor}"
        assert re.search(rf"^Tag: {builder}-abi3-linux_\w+$", info(wheel, "WHEEL"), re.MULTILINE)
        assert {"eal/_native.abi3.so", "eal/_methods.abi3.so"} <= set(wheel.namelist())
        assert wheel.filename
        commands = Path(wheel.filename).parent / "build" / "compile_commands.json"
        assert "-DPy_LIMITED_API=0x030b0000" in commands.read_text()

    def test_brings_the_commands(self, wheel: zipfile.ZipFile) -> None:
        commands = configparser.ConfigParser()
        commands.read_string(info(wheel, "entry_points.txt"))
        assert dict(commands["console_scripts"]) == {
            "ivshmem": "ivshmem.cli:main",
            "cpu-layout": "eal.topology:main",
        }

    def test_brings_the_licence(self, wheel: zipfile.ZipFile) -> None:
        assert info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()


def test_the_installed_commands_can_be_loaded() -> None:
    ours = importlib.metadata.distribution("ivshmem").entry_points
    assert {entry.name for entry in ours} == {"ivshmem", "cpu-layout"}
    assert all(callable(entry.load()) for entry in ours)


def test_one_version_everywhere() -> None:
    meson = re.search(r"^  version: '(.*)',$", (ROOT / "meson.build").read_text(), re.MULTILINE)
    assert meson
    assert meson[1] == project()["version"]
    assert f"\n## {project()['version']}" in (ROOT / "CHANGELOG.md").read_text()
