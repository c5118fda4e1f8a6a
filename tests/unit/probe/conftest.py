# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the tests in which devices are plugged and unplugged while a guest runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
from tests.hotplug import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Any:
    return Lab(tmp_path)


@pytest.fixture
def guest(lab: Any, runtime_dir: Path, prefix: str) -> Callable[..., eal.Eal]:
    """`guest()` starts this process's Eal as the guest of the lab's bus."""
    return lambda: eal.init(file_prefix=prefix, no_huge=True, sysfs_root=lab.root, stall_timeout=0.2)
