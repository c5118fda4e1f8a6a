# SPDX-License-Identifier: BSD-3-Clause
"""Imports between packages go down only, and packages, modules and classes stay small.

Every import statement counts: at the top of a module, in a function, and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOP = ("eal", "ivshmem", "tools")
LEVELS = 10  # of packages in eal
LINES = 300  # of a module
MODULES = 12  # of a package, with __init__.py
METHODS = 25  # of a class
VAGUE = {"util", "utils", "common", "helper", "helpers", "misc"}

# The packages that each package may import. A sub-package of eal.topology or ivshmem.commands belongs to its parent;
# "eal" and "ivshmem" are the facades, eal/__init__.py and ivshmem/__init__.py.
ALLOWED = {
    "eal._native": "",
    "eal._methods": "",
    "eal.lazy_exports": "",
    "eal.errors": "",
    "eal.linux": "eal._native eal.errors",
    "eal.native_handle": "eal._native eal.linux",
    "eal.text": "eal._native eal.errors",
    "eal.runtime": "eal.errors",
    "eal.topology": "eal.errors eal.text",
    "eal.metadata": "eal._native eal.errors eal.linux eal.native_handle eal.text eal.runtime",
    "eal.memory": "eal._native eal.errors eal.linux eal.native_handle eal.text eal.runtime eal.topology eal.metadata",
    "eal.ring": "eal._native eal._methods eal.errors eal.linux eal.native_handle eal.text eal.memory",
    "eal.mempool": "eal._native eal.errors eal.linux eal.native_handle eal.text eal.memory",
    "eal.pci": "eal.errors eal.linux eal.memory",
    "eal.mbuf": "eal._native eal.errors eal.memory eal.mempool",
    "eal.probe": "eal._native eal.errors eal.linux eal.metadata eal.memory eal.pci",
    "eal.objects": "eal.errors eal.text eal.metadata eal.memory eal.ring eal.mempool eal.mbuf eal.probe",
    "eal.lifecycle": (
        "eal.errors eal.text eal.runtime eal.topology eal.metadata eal.memory eal.ring eal.mempool eal.pci "
        "eal.mbuf eal.probe eal.objects"
    ),
    "eal.doctor": "eal._native eal.errors eal.linux eal.text eal.runtime eal.topology eal.memory eal.pci eal.probe",
    "eal.jit": "eal._native eal.errors eal.ring eal.mempool",
    "eal": "eal.lazy_exports eal.errors eal.topology eal.memory eal.ring eal.mempool eal.mbuf eal.probe eal.lifecycle",
    "ivshmem.vmm": "eal.errors eal.text eal.metadata eal.memory",
    "ivshmem.scratch": "eal.errors eal.runtime eal.lifecycle",
    "ivshmem.hotplug": "eal._native eal.errors eal.linux eal.text eal.runtime eal.metadata eal.memory ivshmem.vmm",
    "ivshmem.placement": "eal.errors eal.topology ivshmem.hotplug",
    "ivshmem.metadata": (
        "eal.errors eal.text eal.runtime eal.metadata eal.memory eal.ring eal.mempool eal.objects eal.lifecycle "
        "ivshmem.vmm ivshmem.hotplug"
    ),
    "ivshmem.inspect": (
        "eal._native eal.errors eal.linux eal.native_handle eal.text eal.runtime eal.metadata eal.memory eal.ring "
        "eal.mempool eal.mbuf eal.lifecycle"
    ),
    "ivshmem.vm": "eal.errors ivshmem.scratch",
    "ivshmem.emulate": (
        "eal.errors eal.runtime eal.pci eal.lifecycle ivshmem.vmm ivshmem.scratch ivshmem.hotplug ivshmem.metadata"
    ),
    "ivshmem.emulated_bus": "ivshmem.emulate",
    "ivshmem": "eal.lazy_exports ivshmem.metadata",
    "ivshmem.plan": (
        "eal.errors eal.linux eal.text eal.runtime eal.metadata eal.memory eal.ring eal.mempool eal.mbuf "
        "eal.lifecycle eal ivshmem.vmm ivshmem.hotplug ivshmem.metadata ivshmem.inspect"
    ),
    "ivshmem.demo": "eal.errors eal ivshmem.metadata ivshmem.vm ivshmem.emulate",
    "ivshmem.doctor": (
        "eal._native eal.errors eal.runtime eal.metadata eal.memory eal.pci eal.doctor ivshmem.inspect ivshmem.vm"
    ),
    "ivshmem.cli_options": "eal.errors eal.runtime ivshmem.metadata",
    "ivshmem.commands": (
        "eal.errors eal.text eal.runtime eal.topology eal.metadata ivshmem.vmm ivshmem.scratch ivshmem.hotplug "
        "ivshmem.placement ivshmem.metadata ivshmem.inspect ivshmem.emulate ivshmem.plan ivshmem.demo "
        "ivshmem.doctor ivshmem.cli_options"
    ),
    "ivshmem.cli": "eal.errors ivshmem.commands",
    "tools.cpu_layout": "eal.topology",
}  # fmt: skip

Graph = Mapping[str, set[str]]


class Tree:
    """The modules below a root directory and their imports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = {
            module_name(path.relative_to(root)): path
            for top in TOP
            for path in sorted((root / top).rglob("*.py*"))
            if path.suffix in (".py", ".pyi")
        }

    @cached_property
    def sources(self) -> dict[str, ast.Module]:
        return {name: ast.parse(path.read_text(), str(path)) for name, path in self.paths.items()}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Module -> the modules of the tree that it imports."""
        return {name: self._imports_of(name) - {name} for name in self.paths}

    def _imports_of(self, name: str) -> set[str]:
        path = self.paths[name]
        package = list(path.relative_to(self.root).parent.parts)
        found = set()
        for target in imported_names(self.sources[name], package):
            while target and target not in self.paths:
                target = target.rpartition(".")[0]
            if target:
                found.add(target)
        return found

    @cached_property
    def packages(self) -> dict[str, set[str]]:
        """Package of the table -> the packages that its modules import."""
        found: dict[str, set[str]] = {}
        for module, targets in self.imports.items():
            package = package_of(module)
            found.setdefault(package, set()).update(package_of(target) for target in targets)
        return {package: targets - {package} for package, targets in found.items()}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """Return the key of ALLOWED: the facade, or the package or module directly below it."""
    return ".".join(module.split(".")[:2])


def imported_names(source: ast.Module, package: list[str]) -> Iterator[str]:
    """Yield the full name of everything that a module of this package imports."""
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = base + ([node.module] if node.module else [])
            yield from (".".join([*stem, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


# --- the rules: each returns its violations --------------------------------------------------------------------


def forbidden_imports(tree: Tree) -> list[str]:
    faults = [f"package {package} is missing in ALLOWED" for package in tree.packages if package not in ALLOWED]
    for module, targets in tree.imports.items():
        package = package_of(module)
        for target in sorted(targets):
            if package_of(target) not in {package, *ALLOWED.get(package, "").split()}:
                faults.append(f"{module} imports {target}")
    return faults


def cycles(graph: Graph) -> list[list[str]]:
    """Return each strongly connected component with more than one node (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def level(graph: Graph, node: str) -> int:
    """Return the number of nodes on the longest path of imports that begins at a node. The graph has no cycle."""
    return 1 + max((level(graph, target) for target in graph.get(node, ())), default=0)


def oversized(tree: Tree) -> list[str]:
    faults = []
    sizes: dict[Path, int] = {}
    for module, path in tree.paths.items():
        sizes[path.parent] = sizes.get(path.parent, 0) + 1
        lines = len(path.read_text().splitlines())
        if lines > LINES:
            faults.append(f"{module} has {lines} lines")
        for node in ast.walk(tree.sources[module]):
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) for child in node.body)
                if methods > METHODS:
                    faults.append(f"{module}.{node.name} has {methods} methods")
    for directory, count in sizes.items():
        if count > MODULES:
            faults.append(f"{directory.relative_to(tree.root)} has {count} modules")
    return faults


def vague_names(tree: Tree) -> list[str]:
    return [module for module in tree.paths if VAGUE & set(module.rpartition(".")[2].split("_"))]


# --- the project -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project() -> Tree:
    return Tree(ROOT)


def test_packages_import_only_allowed_packages(project: Tree) -> None:
    assert forbidden_imports(project) == []


def test_table_names_existing_packages_only(project: Tree) -> None:
    assert {name for allowed in ALLOWED.values() for name in allowed.split()} | set(ALLOWED) == set(project.packages)


def test_table_allows_no_cycle_and_ten_levels_in_eal() -> None:
    graph = {package: set(allowed.split()) for package, allowed in ALLOWED.items()}
    assert cycles(graph) == []
    assert {
        package: depth for package in graph if package.startswith("eal") if (depth := level(graph, package)) > LEVELS
    } == {}


def test_modules_and_packages_have_no_import_cycle(project: Tree) -> None:
    assert cycles(project.imports) == []
    assert cycles(project.packages) == []


def test_packages_modules_and_classes_are_small(project: Tree) -> None:
    assert oversized(project) == []


def test_module_names_state_their_content(project: Tree) -> None:
    assert vague_names(project) == []


# --- each rule finds a violation -------------------------------------------------------------------------------


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A small tree without violations."""
    for name, text in {
        "tools/cpu_layout.py": "import eal.topology.cli, numpy",
        "ivshmem/cli.py": "from eal.errors import Invalid\nfrom ivshmem.commands import up",
        "ivshmem/commands/__init__.py": "",
        "ivshmem/commands/up.py": "import ivshmem.vmm.qemu",
        "ivshmem/vmm/__init__.py": "",
        "ivshmem/vmm/qemu.py": "from . import device",
        "ivshmem/vmm/device.py": "from eal.errors import Invalid",
        "eal/errors.py": "import sys",
        "eal/_native.pyi": "from typing import Any",
        "eal/linux/__init__.py": "",
        "eal/linux/mapping.py": "from ..errors import Invalid\nfrom eal._native import lib",
        "eal/topology/__init__.py": "",
        "eal/topology/cli.py": "from eal.errors import Invalid",
    }.items():
        write(tmp_path / name, text)
    tree = Tree(tmp_path)
    assert (forbidden_imports(tree), oversized(tree), vague_names(tree)) == ([], [], [])
    assert cycles(tree.imports) == cycles(tree.packages) == []
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("eal/errors.py", "import ivshmem", "eal.errors imports ivshmem"),
        ("eal/errors.py", "import os, ivshmem.vmm.qemu as q", "eal.errors imports ivshmem.vmm.qemu"),
        ("eal/errors.py", "def f():\n    from ivshmem.vmm import qemu", "eal.errors imports ivshmem.vmm.qemu"),
        ("eal/_native.pyi", "from ivshmem.vmm.qemu import plan", "eal._native imports ivshmem.vmm.qemu"),
        ("eal/linux/deep.py", "if 0:\n    from tools.cpu_layout import m", "eal.linux.deep imports tools.cpu_layout"),
        ("ivshmem/cli.py", "importlib.import_module('tools.cpu_layout')", "ivshmem.cli imports tools.cpu_layout"),
        ("ivshmem/vmm/echo.py", "from ...tools import cpu_layout", "ivshmem.vmm.echo imports tools.cpu_layout"),
        ("eal/errors.py", "if TYPE_CHECKING:\n    import eal.linux.mapping", "eal.errors imports eal.linux.mapping"),
        ("eal/topology/cli.py", "from eal.linux.mapping import Mapping", "eal.topology.cli imports eal.linux.mapping"),
        ("eal/newcomer/part.py", "", "package eal.newcomer is missing in ALLOWED"),
    ],
)
def test_forbidden_import_is_found(made_up: Path, file: str, text: str, fault: str) -> None:
    write(made_up / "ivshmem/__init__.py", "")
    write(made_up / file, text)
    assert forbidden_imports(Tree(made_up)) == [fault]


@pytest.mark.parametrize(
    "files",
    [
        {"eal/errors.py": "import eal.linux.mapping"},
        {"ivshmem/vmm/device.py": "def f():\n    from ivshmem.vmm.qemu import plan"},
        {
            "eal/linux/a.py": "import eal.linux.b",
            "eal/linux/b.py": "from . import c",
            "eal/linux/c.py": "from . import a",
        },
    ],
)
def test_import_cycle_is_found(made_up: Path, files: dict[str, str]) -> None:
    for file, text in files.items():
        write(made_up / file, text)
    [cycle] = cycles(Tree(made_up).imports)
    assert {module_name(Path(file)) for file in files} <= set(cycle)


def test_cycle_between_packages_is_found(made_up: Path) -> None:
    write(made_up / "eal/linux/names.py", "")
    write(made_up / "eal/topology/cli.py", "import eal.linux.names")
    write(made_up / "eal/linux/mapping.py", "import eal.topology.facts")
    write(made_up / "eal/topology/facts.py", "")
    tree = Tree(made_up)
    assert cycles(tree.imports) == []
    assert cycles(tree.packages) == [["eal.linux", "eal.topology"]]


def test_level_is_that_of_the_longest_path() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": {"d"}, "d": set[str]()}
    assert [level(graph, node) for node in "abcd"] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("eal/linux/long.py", "pass\n" * (LINES + 1), "eal.linux.long has 301 lines"),
        ("eal/linux/big.py", "class C:\n" + "    def f(self): ...\n" * (METHODS + 1), "eal.linux.big.C has 26 methods"),
    ],
)
def test_long_module_and_large_class_are_found(made_up: Path, file: str, text: str, fault: str) -> None:
    write(made_up / file, text)
    assert oversized(Tree(made_up)) == [fault]


def test_large_package_is_found(made_up: Path) -> None:
    for number in range(MODULES - 1):
        write(made_up / f"eal/linux/m{number}.py", "")
    assert oversized(Tree(made_up)) == ["eal/linux has 13 modules"]


@pytest.mark.parametrize("name", ["util.py", "common/part.py", "misc.py", "ring_helpers.py"])
def test_vague_name_is_found(made_up: Path, name: str) -> None:
    write(made_up / "eal/linux/" / name, "")
    if "/" in name:
        write(made_up / "eal/linux" / Path(name).parent / "__init__.py", "")
    assert len(vague_names(Tree(made_up))) == 1
