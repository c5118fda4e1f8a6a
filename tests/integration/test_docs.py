# SPDX-License-Identifier: BSD-3-Clause
"""The examples in README and docs run unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python ?(?P<label>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, label: str) -> list[str]:
    return [match["code"] for match in BLOCK.finditer(page.read_text()) if match["label"] == label]


def run(code: str, folder: Path | None = None) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        done = subprocess.run(
            [sys.executable, "-P", script.name], capture_output=True, text=True, timeout=60, cwd=folder
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


# C programs of the guide, by the file name that its Python examples compile.
C_BLOCKS = {"double.c": re.findall(r"^```c\n(.*?)^```$", (ROOT / "docs/guide.md").read_text(), re.M | re.S)[0]}

EXAMPLES = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(page, ""))
]


@pytest.mark.usefixtures("runtime_dir")
@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code: str, tmp_path: Path) -> None:
    for program, text in C_BLOCKS.items():
        (tmp_path / program).write_text(text)
    run(code, folder=tmp_path)


def test_docs_contain_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.usefixtures("runtime_dir")
def test_readme_host_and_guest_exchange_messages(tmp_path: Path) -> None:
    (host,) = blocks(ROOT / "README.md", "host")
    (guest,) = blocks(ROOT / "README.md", "guest")
    script = tmp_path / "guest.py"
    script.write_text(guest)
    emulate = (
        "\nimport subprocess, sys\n"
        f"command = [sys.executable, '-P', {str(script)!r}]\n"
        "ivshmem = [sys.executable, '-P', '-c', 'from ivshmem.cli import main; main()']\n"
        "subprocess.run([*ivshmem, 'emulate', 'vm0', '--', *command], check=True)\n"
        "assert frames.available == 64\n"
    )
    output = run(host + emulate)
    assert "front door (480, 640) 100" in output
    assert "-device ivshmem-plain" in output


def test_relative_links_point_to_existing_files() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
