# SPDX-License-Identifier: BSD-3-Clause
"""pytest --no-skips: skipped and xfailed tests fail the run and are listed with their reasons."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

SAMPLES = {
    "skip": "import pytest\ndef test_s():\n    pytest.skip('no reason')\n",
    "mark": "import pytest\n@pytest.mark.skip('no reason')\ndef test_s():\n    assert 0\n",
    "xfail": "import pytest\n@pytest.mark.xfail(reason='no reason')\ndef test_s():\n    assert 0\n",
    "xpass": "import pytest\n@pytest.mark.xfail(reason='no reason')\ndef test_s():\n    assert 1\n",
    "fixture": "import pytest\n@pytest.fixture\ndef unavailable():\n    pytest.skip('no reason')\n"
    "def test_s(unavailable):\n    assert 0\n",
    "module": "import pytest\npytest.skip('no reason', allow_module_level=True)\n",
    "import": "import pytest\npytest.importorskip('no_such_module', reason='no reason')\n",
}


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    pytest = [sys.executable, "-P", "-m", "pytest", "-p", "xdist", *arguments]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # starts faster
    return subprocess.run(pytest, cwd=folder, env=environment, capture_output=True, text=True)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"test_{name}.py").write_text(SAMPLES[name])
    (folder / "test_good.py").write_text("def test_good():\n    pass\n")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_no_skips_lists_each_kind_of_skip(tmp_path: Path, workers: str) -> None:
    write(tmp_path, *SAMPLES)
    run = run_pytest(tmp_path, "--no-skips", "-n", workers)
    assert run.returncode == 1, run.stdout
    listed = run.stdout.split("which fails the run with --no-skips")[1].splitlines()
    for name in SAMPLES:
        [line] = [line for line in listed if line.startswith(f"test_{name}.py")]
        assert "no reason" in line


@pytest.mark.parametrize(("name", "workers"), [("module", "2"), ("skip", "0")])
def test_no_skips_with_one_skip_fails(tmp_path: Path, name: str, workers: str) -> None:
    write(tmp_path, name)
    assert run_pytest(tmp_path, "--no-skips", "-n", workers).returncode == 1


def test_skips_without_option_pass(tmp_path: Path) -> None:
    write(tmp_path, "skip", "xfail", "module")
    run = run_pytest(tmp_path)
    assert run.returncode == 0
    assert "--no-skips" not in run.stdout


def test_no_skips_without_skips_passes(tmp_path: Path) -> None:
    write(tmp_path)
    assert run_pytest(tmp_path, "--no-skips").returncode == 0


def test_no_skips_keeps_status_of_collection_error(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text("import nothing_of_that_name\n")
    assert run_pytest(tmp_path, "--no-skips").returncode == 2
