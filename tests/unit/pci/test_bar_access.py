# SPDX-License-Identifier: BSD-3-Clause
"""eal.pci.bar_access: the choice between sysfs and /dev/mem for the BARs of a prefix."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import eal
from eal.lifecycle import options
from eal.linux.latency import Speed
from eal.linux.mapping import Mapping
from eal.pci import bar_access
from eal.pci.bar import Bar
from eal.pci.bar_access import BarAccess, Choice, read_choice
from eal.pci.device import IvshmemDevice

CACHED, UNCACHED = Speed(1.1, 1.0, None, 5.0), Speed(300.0, 1.0, None, 5.0)


class FakeBar(Bar):
    """A BAR above 4 GiB. `outcome` is the error of a mapping through /dev/mem, or None."""

    def __init__(self, folder: Path, emulated: bool = False, outcome: eal.EalError | None = None) -> None:
        self.device = IvshmemDevice("0000:00:04.0", folder if emulated else Path("/sys/devices/0000:00:04.0"))
        self.file = folder / "bar"
        self.file.write_bytes(bytes(8192))
        self.outcome = outcome
        self.held = False
        self.ways: list[str] = []

    def _map(self, way: str, length: int) -> Mapping:
        self.ways.append(way)
        with self.file.open("r+b") as file:
            return Mapping(file.fileno(), length)

    def map(self, length: int, *, writable: bool, hint: int = 0) -> Mapping:
        return self._map("sysfs", length)

    def map_write_back(self, length: int, *, writable: bool, hint: int = 0) -> Mapping:
        if self.outcome is not None:
            raise self.outcome
        return self._map("devmem", length)

    def held_write_back(self) -> bool:
        return self.held


@contextlib.contextmanager
def no_lock() -> Iterator[None]:
    yield


def access(folder: Path, wish: str, *, primary: bool = True) -> BarAccess:
    return BarAccess(folder / "choice", wish, primary=primary, lock=no_lock)


def way(chosen: BarAccess, bar: FakeBar) -> str:
    chosen.map(bar, 8192, writable=True)
    return bar.ways[-1]


@pytest.mark.parametrize(("speed", "chosen"), [(CACHED, "sysfs"), (UNCACHED, "devmem")])
def test_auto_chooses_by_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: Speed, chosen: str) -> None:
    monkeypatch.setattr(bar_access, "measure", lambda mapping: speed)
    auto = access(tmp_path, "auto")
    assert auto.choice == Choice("auto")
    assert way(auto, FakeBar(tmp_path)) == chosen
    assert auto.choice.access == chosen
    assert f"a load takes {speed.load} ns" in auto.choice.why
    # The choice holds for later processes, even if they would measure another latency.
    monkeypatch.setattr(bar_access, "measure", lambda mapping: CACHED if speed is UNCACHED else UNCACHED)
    for wish in ("auto", "sysfs", "devmem"):
        assert way(access(tmp_path, wish, primary=False), FakeBar(tmp_path)) == chosen


def test_primary_makes_new_choice(tmp_path: Path) -> None:
    assert way(access(tmp_path, "devmem"), FakeBar(tmp_path)) == "devmem"
    assert way(access(tmp_path, "sysfs"), FakeBar(tmp_path)) == "sysfs"
    assert read_choice(tmp_path / "choice") == Choice("sysfs", "asked for")


def test_auto_chooses_devmem_if_another_process_maps_bar_write_back(tmp_path: Path) -> None:
    bar = FakeBar(tmp_path)
    bar.held = True
    assert way(access(tmp_path, "auto"), bar) == "devmem"
    assert bar.ways == ["devmem"]  # sysfs would fail: a range has one type at a time


def test_auto_without_access_to_devmem_chooses_sysfs_and_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bar_access, "measure", lambda mapping: UNCACHED)
    auto = access(tmp_path, "auto")
    assert way(auto, FakeBar(tmp_path, outcome=eal.Denied("it takes root"))) == "sysfs"
    assert auto.choice.access == "sysfs"
    assert "it takes root" in auto.choice.why
    assert "will be slow" in caplog.text


def test_bar_without_write_back_falls_back_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = access(tmp_path, "devmem")
    assert way(chosen, FakeBar(tmp_path, outcome=eal.EalError("uncached at 0xfe800000"))) == "sysfs"
    assert chosen.choice.fallbacks == {"0000:00:04.0": "uncached at 0xfe800000"}
    assert "0000:00:04.0" in caplog.text
    assert way(chosen, FakeBar(tmp_path)) == "devmem"


def test_bar_in_use_is_retried_for_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bar = FakeBar(tmp_path, outcome=eal.InUse("another process holds it"))
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            bar.outcome = None

    monkeypatch.setattr(time, "sleep", sleep)
    assert way(access(tmp_path, "devmem"), bar) == "devmem"
    retried = access(tmp_path, "devmem")
    for _ in range(3):
        stays = FakeBar(tmp_path, outcome=eal.InUse("another process holds it"))
        assert way(retried, stays) == "sysfs"
    assert sum(waited) < 0.5  # for all BARs together


@pytest.mark.parametrize("wish", ["auto", "devmem"])
def test_emulated_bus_is_mapped_through_sysfs(tmp_path: Path, wish: str) -> None:
    chosen = access(tmp_path, wish)
    assert way(chosen, FakeBar(tmp_path, emulated=True)) == "sysfs"
    assert "emulated bus" in str(chosen.choice)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"access": "devmem"}', '{"access": 1, "why": 2, "fallbacks": 3}'])
def test_unreadable_choice_is_default(tmp_path: Path, text: str) -> None:
    (tmp_path / "choice").write_text(text)
    assert read_choice(tmp_path / "choice") == Choice()


# --- eal.init ---------------------------------------------------------------------------------------------------


def test_init_option_sets_choice(runtime_dir: Path, prefix: str, tmp_path: Path) -> None:
    with eal.init(["--bar-access", "devmem"], file_prefix=prefix, no_huge=True, sysfs_root=tmp_path) as made:
        assert made.bar_access == Choice("devmem", "asked for")
        record = runtime_dir / prefix / "bar_access"
        assert json.loads(record.read_text())["access"] == "devmem"
    assert not record.exists()
    for argv, keywords in ((["--bar-access", "mmio"], {}), ([], {"bar_access": "mmio"})):
        with pytest.raises(eal.Invalid, match="mmio"):
            options.parse(argv, keywords)


def test_secondary_with_other_choice_warns_that_it_follows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    access(tmp_path, "sysfs")
    with caplog.at_level(logging.WARNING):
        access(tmp_path, "auto", primary=False)
        assert caplog.text == ""
        access(tmp_path, "devmem", primary=False)
    assert "bar_access='devmem' is not followed: the prefix's is 'sysfs'" in caplog.text
