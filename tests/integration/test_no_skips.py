# SPDX-License-Identifier: BSD-3-Clause
"""pytest --no-skips: whatever did not run in earnest makes the run fail, and is listed with its reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

SAMPLES = {
    "skip": "import pytest\ndef test_s():\n    pytest.skip('no moon tonight')\n",
    "mark": "import pytest\n@pytest.mark.skip('no moon tonight')\ndef test_s():\n    assert 0\n",
    "xfail": "import pytest\n@pytest.mark.xfail(reason='no moon tonight')\ndef test_s():\n    assert 0\n",
    "xpass": "import pytest\n@pytest.mark.xfail(reason='no moon tonight')\ndef test_s():\n    assert 1\n",
    "fixture": "import pytest\n@pytest.fixture\ndef moon():\n    pytest.skip('no moon tonight')\n"
    "def test_s(moon):\n    assert 0\n",
    "module": "import pytest\npytest.skip('no moon tonight', allow_module_level=True)\n",
    "import": "import pytest\npytest.importorskip('moon', reason='no moon tonight')\n",
}


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    pytest = [sys.executable, "-P", "-m", "pytest", "-p", "xdist", *arguments]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # a quicker start
    return subprocess.run(pytest, cwd=folder, env=environment, capture_output=True, text=True)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"test_{name}.py").write_text(SAMPLES[name])
    (folder / "test_good.py").write_text("def test_good():\n    pass\n")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_kind_of_skip_is_listed(tmp_path: Path, workers: str) -> None:
    write(tmp_path, *SAMPLES)
    run = run_pytest(tmp_path, "--no-skips", "-n", workers)
    assert run.returncode == 1, run.stdout
    listed = run.stdout.split("which --no-skips makes a failure")[1].splitlines()
    for name in SAMPLES:
        [line] = [line for line in listed if line.startswith(f"test_{name}.py")]
        assert "no moon tonight" in line


@pytest.mark.parametrize(("name", "workers"), [("module", "2"), ("skip", "0")])
def test_one_of_them_is_enough(tmp_path: Path, name: str, workers: str) -> None:
    write(tmp_path, name)
    assert run_pytest(tmp_path, "--no-skips", "-n", workers).returncode == 1


def test_without_the_option_a_skip_is_no_failure(tmp_path: Path) -> None:
    write(tmp_path, "skip", "xfail", "module")
    run = run_pytest(tmp_path)
    assert run.returncode == 0
    assert "--no-skips" not in run.stdout


def test_a_run_without_skips_passes(tmp_path: Path) -> None:
    write(tmp_path)
    assert run_pytest(tmp_path, "--no-skips").returncode == 0


def test_a_failure_keeps_its_own_status(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text("import nothing_of_that_name\n")
    assert run_pytest(tmp_path, "--no-skips").returncode == 2
