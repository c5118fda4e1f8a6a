# SPDX-License-Identifier: BSD-3-Clause
"""Caching: memory types as the kernel lists them, the speed of memory, and what a prefix decides from both."""

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
    """A BAR above 4 GiB. `outcome` is what /dev/mem comes to."""

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
def test_auto_goes_by_the_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: Speed, chosen: str) -> None:
    monkeypatch.setattr(bar_access, "measure", lambda mapping: speed)
    auto = access(tmp_path, "auto")
    assert auto.choice == Choice("auto")
    assert way(auto, FakeBar(tmp_path)) == chosen
    assert auto.choice.access == chosen
    assert f"a load takes {speed.load} ns" in auto.choice.why
    # From now on that is it, whatever another process would measure.
    monkeypatch.setattr(bar_access, "measure", lambda mapping: CACHED if speed is UNCACHED else UNCACHED)
    for wish in ("auto", "sysfs", "devmem"):
        assert way(access(tmp_path, wish, primary=False), FakeBar(tmp_path)) == chosen


def test_a_primary_decides_anew(tmp_path: Path) -> None:
    assert way(access(tmp_path, "devmem"), FakeBar(tmp_path)) == "devmem"
    assert way(access(tmp_path, "sysfs"), FakeBar(tmp_path)) == "sysfs"
    assert read_choice(tmp_path / "choice") == Choice("sysfs", "asked for")


def test_auto_follows_who_has_it_write_back(tmp_path: Path) -> None:
    bar = FakeBar(tmp_path)
    bar.held = True
    assert way(access(tmp_path, "auto"), bar) == "devmem"
    assert bar.ways == ["devmem"]  # through sysfs it cannot be mapped


def test_auto_without_a_right_to_devmem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bar_access, "measure", lambda mapping: UNCACHED)
    auto = access(tmp_path, "auto")
    assert way(auto, FakeBar(tmp_path, outcome=eal.Denied("it takes root"))) == "sysfs"
    assert auto.choice.access == "sysfs"
    assert "it takes root" in auto.choice.why
    assert "will be slow" in caplog.text


def test_a_bar_that_cannot_be_had_falls_back_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = access(tmp_path, "devmem")
    assert way(chosen, FakeBar(tmp_path, outcome=eal.EalError("uncached at 0xfe800000"))) == "sysfs"
    assert chosen.choice.fallbacks == {"0000:00:04.0": "uncached at 0xfe800000"}
    assert "0000:00:04.0" in caplog.text
    assert way(chosen, FakeBar(tmp_path)) == "devmem"


def test_who_only_looks_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bar = FakeBar(tmp_path, outcome=eal.InUse("another process holds it"))
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            bar.outcome = None

    monkeypatch.setattr(time, "sleep", sleep)
    assert way(access(tmp_path, "devmem"), bar) == "devmem"
    for_good = access(tmp_path, "devmem")
    for _ in range(3):
        stays = FakeBar(tmp_path, outcome=eal.InUse("another process holds it"))
        assert way(for_good, stays) == "sysfs"
    assert sum(waited) < 0.5  # for all BARs together


@pytest.mark.parametrize("wish", ["auto", "devmem"])
def test_an_emulated_bus_has_no_physical_addresses(tmp_path: Path, wish: str) -> None:
    chosen = access(tmp_path, wish)
    assert way(chosen, FakeBar(tmp_path, emulated=True)) == "sysfs"
    assert "emulated bus" in str(chosen.choice)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"access": "devmem"}', '{"access": 1, "why": 2, "fallbacks": 3}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "choice").write_text(text)
    assert read_choice(tmp_path / "choice") == Choice()


# --- eal.init ---------------------------------------------------------------------------------------------------


def test_the_option(runtime_dir: Path, prefix: str, tmp_path: Path) -> None:
    with eal.init(["--bar-access", "devmem"], file_prefix=prefix, no_huge=True, sysfs_root=tmp_path) as made:
        assert made.bar_access == Choice("devmem", "asked for")
        record = runtime_dir / prefix / "bar_access"
        assert json.loads(record.read_text())["access"] == "devmem"
    assert not record.exists()
    for argv, keywords in ((["--bar-access", "mmio"], {}), ([], {"bar_access": "mmio"})):
        with pytest.raises(eal.Invalid, match="mmio"):
            options.parse(argv, keywords)


def test_a_secondary_is_told_that_it_follows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    access(tmp_path, "sysfs")
    with caplog.at_level(logging.WARNING):
        access(tmp_path, "auto", primary=False)
        assert caplog.text == ""
        access(tmp_path, "devmem", primary=False)
    assert "bar_access='devmem' is not followed: the prefix's is 'sysfs'" in caplog.text
