# SPDX-License-Identifier: BSD-3-Clause
"""Find metadata files of live, kept and dead prefixes by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from ivshmem.inspect.prefixes import prefix_states
from ivshmem.metadata.lookup import find_metadata
from tests.prefix_hosts import data_files


def test_find_metadata_in_live_dead_and_kept_prefixes(live_host: Any, runtime_dir: Path, prefix: str) -> None:
    for ending in ("alive", "dead", "kept"):
        found = find_metadata(runtime_dir, f"of{ending}")
        assert found.directory.prefix == prefix + ending
        assert found.file.info.name == f"of{ending}"
        assert [device.path for device in found.devices()][-1] == found.path
        assert {Path(device.path) for device in found.devices()} == data_files(prefix + ending)
        assert find_metadata(runtime_dir, f"of{ending}", prefix + ending).path == found.path
    with pytest.raises(eal.NotFound, match=r"existing: 'ofalive', 'ofdead', 'ofkept'"):
        find_metadata(runtime_dir, "of")
    with pytest.raises(eal.NotFound, match=f"no metadata 'ofdead' in file_prefix '{prefix}kept' in .*: 'ofkept'"):
        find_metadata(runtime_dir, "ofdead", f"{prefix}kept")


def test_found_devices_equal_devices_of_metadata(primary: eal.Eal, runtime_dir: Path) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    metadata.add_memzone(eal.memzone_reserve("seen", 64, group="seen"), readonly=True)
    assert find_metadata(runtime_dir, "vm0").devices() == metadata.devices()


@pytest.mark.parametrize("damage", [b"", b"x", bytes(4096), bytes(1 << 20), b"IVSHMMET" + b"\xff" * 4096, None])
def test_find_damaged_metadata_raises_corrupt(
    host: Callable[..., Any], runtime_dir: Path, prefix: str, damage: Any
) -> None:
    host("x").crash()
    (path,) = (path for path in data_files(f"{prefix}x") if path.suffix == ".md")
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(eal.NotFound if damage is None else eal.Corrupt, match=r"metadata file .*ofx\.md"):
        find_metadata(runtime_dir, "ofx")
    assert [state.status for state in prefix_states(runtime_dir)] == ["dead"]
