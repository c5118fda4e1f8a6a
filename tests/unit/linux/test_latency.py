# SPDX-License-Identifier: BSD-3-Clause
"""eal.linux.latency: latency of loads and atomics on mapped memory."""

from __future__ import annotations

from pathlib import Path

from eal.linux.latency import Speed, measure
from eal.linux.mapping import Mapping


def test_measure_of_ordinary_memory_is_cached_and_changes_nothing(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.write(bytes(range(256)) * 16)
        file.flush()
        mapping = Mapping(file.fileno(), 4096)
    speed = measure(mapping, 132)
    assert not speed.uncached
    assert speed.atomic is not None
    assert 0 < speed.load < 1000
    assert bytes(mapping.view()) == bytes(range(256)) * 16
    assert measure(mapping).atomic is None


def test_speed_with_slow_loads_is_uncached_and_printed() -> None:
    speed = Speed(300.0, 1.0, 250.0, 5.0)
    assert speed.uncached
    assert str(speed) == ("a load takes 300.0 ns, 1.0 on ordinary memory; an atomic 250.0 ns, 5.0 on ordinary memory")
