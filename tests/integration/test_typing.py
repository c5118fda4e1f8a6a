# SPDX-License-Identifier: BSD-3-Clause
"""The typed interface: mypy, pyright, inspect and jedi see the public names of the installed package."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eal

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Lines that a type checker must reject end with the text that its error contains.
CLIENT = """
import numpy as np

import eal
import ivshmem


def use(ring: eal.Ring, pool: eal.MbufPool) -> int:
    made: eal.Ring = eal.ring_create("r", 64, flags=eal.RingFlag.SP_ENQ)
    found: list[eal.Memzone] = eal.memzones()
    count: int = made.enqueue_burst(np.zeros(4, np.uint64))
    watch: eal.Watch = eal.watch(lambda event: print(event.kind))
    metadata: ivshmem.Metadata = ivshmem.metadata_create("vm0")
    metadata.add(made, *found)
    watch.close()
    return count + eal.SOCKET_ID_ANY + pool.n


def misuse(ring: eal.Ring) -> None:
    eal.ring_crate("x", 8)  # ring_crate
    ring.enqueu(1)  # enqueu
    eal.ring_create("x", "many")  # "int"
    eal.ring_create("x", 8, elemsize=4)  # elemsize
    eal.memzone_lookup("z").bufer  # bufer
    eal.init(file_prefx="x")  # file_prefx
    ivshmem.metadata_crate("vm0")  # metadata_crate
    length: str = eal.memzone_lookup("z").length  # "int"
"""
WRONG = {number: line.rpartition("# ")[2] for number, line in enumerate(CLIENT.splitlines(), 1) if "  # " in line}

# Print the completions at the end of argv[1], as the file argv[2]/client.py. Not in the process of the tests, because
# jedi starts a process and a thread, and their finalizer deadlocks in the children that other tests fork.
# The project is not the checkout, whose eal/ has no compiled core.
COMPLETE = """
import pathlib, sys
import jedi

code, directory = sys.argv[1], pathlib.Path(sys.argv[2])
environment = jedi.create_environment(sys.prefix, safe=False)
script = jedi.Script(code, path=directory / "client.py", project=jedi.Project(directory), environment=environment)
print(*(completion.name for completion in script.complete()))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the client and the programs of the guide."""
    directory = tmp_path_factory.mktemp("typing")
    (directory / "client.py").write_text(CLIENT)
    for number, code in enumerate(PROGRAM.findall((ROOT / "docs/guide.md").read_text())):
        (directory / f"guide_{number}.py").write_text(code)
    assert len(list(directory.iterdir())) >= 9
    return directory


def check_errors(errors: list[tuple[str, int, str]]) -> None:
    """Require errors with the right text in all wrong lines of the client, and no others."""
    assert [error for error in errors if error[0] != "client.py" or error[1] not in WRONG] == []
    missed = {line: text for line, text in WRONG.items() if not any(e[1] == line and text in e[2] for e in errors)}
    assert missed == {}, errors


def test_mypy_accepts_the_guide_and_rejects_misuse(programs: Path) -> None:
    options = ["--strict", "--config-file=", f"--cache-dir={programs / 'cache'}", "--no-error-summary"]
    files = sorted(path.name for path in programs.glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mypy", *options, *files], cwd=programs, capture_output=True, text=True
    )
    found = re.findall(r"^(\S+\.py):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    check_errors([(file, int(line), text) for file, line, text in found])


def test_pyright_accepts_the_guide_and_rejects_misuse(programs: Path) -> None:
    command = [sys.executable, "-P", "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, str(programs)], cwd=programs, capture_output=True, text=True)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(list(programs.glob("*.py")))
    check_errors(
        [
            (Path(found["file"]).name, found["range"]["start"]["line"] + 1, found["message"])
            for found in report["generalDiagnostics"]
            if found["severity"] == "error"
        ]
    )


def test_inspect_shows_the_full_signature() -> None:
    assert str(inspect.signature(eal.ring_create)) == (
        "(name: 'str', count: 'int', *, elem_size: 'int' = 8, flags: 'int' = 0, socket_id: 'int' = -1, "
        "group: 'str' = 'default', exist_ok: 'bool' = False) -> 'Ring'"
    )
    assert list(inspect.signature(eal.init).parameters)[:3] == ["argv", "file_prefix", "proc_type"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import eal\neal.ring_c", "ring_create"),
        ("import eal\neal.Mempool.aud", "audit"),
        ("import eal\nring = eal.ring_create('r', 8)\nring.enq", "enqueue"),
        ("import eal\nring = eal.ring_create('r', 8)\nring.enq", "enqueue_burst"),
        ("import eal\nwith eal.init() as host:\n    host.memzone_res", "memzone_reserve"),
        ("import ivshmem\nivshmem.metadata_create('vm0').add_r", "add_ring"),
    ],
)
def test_jedi_completes_the_name(code: str, name: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", COMPLETE, code, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout.split()
