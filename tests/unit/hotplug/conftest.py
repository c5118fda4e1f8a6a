# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the hotplug tests: FakeQemu instances, and metadata with two segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from tests.fake_qemu import FakeQemu
from tests.unit.hotplug.metadata import MIB, metadata_of


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that starts a FakeQemu with the given fields."""
    running = []

    def start(name: str = "q", **how: Any) -> Any:
        started = FakeQemu(tmp_path / name, **how)
        running.append(started)
        return started.__enter__()

    yield start
    for one in running:
        one.__exit__()


@pytest.fixture
def vm(make: Callable[..., Any]) -> Any:
    return make()


@pytest.fixture
def hot(primary: eal.Eal) -> ivshmem.Metadata:
    return metadata_of("hot", 2 * MIB, 16 * MIB)
