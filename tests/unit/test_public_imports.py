# SPDX-License-Identifier: BSD-3-Clause
"""Every documented import works in an interpreter that has imported nothing else of this project."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import eal
import ivshmem

IMPORTS = {
    "eal": """
        Eal init current get_include Memzone Segment SOCKET_ID_ANY Ring RingFlag Burst ZeroCopy Mempool MbufPool
        MempoolFlag Audit Event Watch lcores memzone_reserve memzone_lookup memzone_free memzones memzone_dump
        array_reserve segments segment_create ring_create ring_lookup ring_free rings mempool_create
        pktmbuf_pool_create mempool_lookup mempool_free mempools watch EalError NotFound Exists Invalid InvalidType
        NoMemory Denied InUse Corrupt Stalled Closed Detached Stale
    """,
    "eal.errors": """
        EalError NotFound Exists Invalid InvalidType NoMemory Denied InUse Corrupt Stalled Closed Detached Stale
    """,
    "eal.topology": "Topology lcores pin socket_id_of main",
    "eal.jit": """
        ring_enqueue_bulk ring_enqueue_burst ring_dequeue_bulk ring_dequeue_burst ring_count mempool_get_bulk
        mempool_put_bulk check
    """,
    "ivshmem": "ExposureWarning Metadata metadata_create metadata_lookup qemu_args",
    "ivshmem.vm": "VM VmConfig run",
    "ivshmem.emulate": "EmulatedBus run",
    "ivshmem.emulated_bus": "EmulatedBus",
    "ivshmem.placement": "check",
    "ivshmem.cli": "main",
}
HEADERS = ["layout.h", "ring.h", "ring_peek.h", "mempool.h", "mbuf.h", "fault.h", "segment.h", "table.h"]

# Forks for each statement, which is much faster than an interpreter for each, and prints those that fail.
TRY_EACH = """
import os, sys, traceback
for statement in sys.argv[1:]:
    if os.fork() == 0:
        try:
            exec(statement, {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.wait()[1]:
        print(statement)
"""


@pytest.mark.parametrize("module", IMPORTS)
def test_documented_name_can_be_imported_first(module: str) -> None:
    names = IMPORTS[module].split()
    statements = [f"from {module} import {', '.join(names)}"]
    if module in ("eal", "ivshmem"):  # each lazy name as the first one
        statements += [f"import {module}; {module}.{name}" for name in names]
    done = subprocess.run([sys.executable, "-P", "-c", TRY_EACH, *statements], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("package", [eal, ivshmem])
def test_all_lists_the_documented_names(package: ModuleType) -> None:
    assert sorted(package.__all__) == sorted(IMPORTS[package.__name__].split())
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'ring_crate'"):
        _ = package.ring_crate


@pytest.mark.parametrize("package", [eal, ivshmem])
def test_type_checkers_see_the_lazy_exports(package: ModuleType) -> None:
    assert package.__file__
    source = ast.parse(Path(package.__file__).read_text())
    [guarded] = [node for node in source.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is None
    }
    [call] = [
        node.value
        for node in source.body
        if isinstance(node, ast.Expr)
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "export_lazily"
    ]
    assert ast.literal_eval(call.args[1]) == seen


def test_no_module_hides_a_public_name() -> None:
    """Importing eal.init would replace the function eal.init by the module."""
    hidden = []
    for root in (eal, ivshmem):
        inner = [found.name for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}.") if found.ispkg]
        for package in (root, *map(importlib.import_module, inner)):
            modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
            hidden += [f"{package.__name__}.{name}" for name in modules & set(getattr(package, "__all__", ()))]
    assert hidden == []


def test_headers_and_sources_compile_for_c_programs(tmp_path: Path) -> None:
    include = Path(eal.get_include())
    compiler = ["gcc", "-std=gnu11", "-Wall", "-Werror", "-O2", "-pthread", f"-I{include}"]
    for header in HEADERS:
        program = tmp_path / "alone.c"
        program.write_text(f'#include "{header}"\nint main(void) {{ return 0; }}\n')
        subprocess.run([*compiler, "-fsyntax-only", str(program)], check=True)
    program = tmp_path / "all.c"
    program.write_text("".join(f'#include "{header}"\n' for header in HEADERS) + "int main(void) { return 0; }\n")
    sources = sorted(map(str, (include / "src").glob("*.c")))
    assert len(sources) >= 9
    subprocess.run([*compiler, str(program), *sources, "-o", str(tmp_path / "all")], check=True)
    subprocess.run([tmp_path / "all"], check=True)
