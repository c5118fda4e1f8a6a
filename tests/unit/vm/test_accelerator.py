# SPDX-License-Identifier: BSD-3-Clause
"""Accelerator: the requested one, or the result of one KVM probe per boot of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eal.errors import Invalid
from ivshmem.vm import accelerator


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and no $IVSHMEM_ACCEL."""
    monkeypatch.setenv("IVSHMEM_CACHE", str(tmp_path))
    monkeypatch.delenv("IVSHMEM_ACCEL", raising=False)
    return tmp_path


def fail() -> bool:
    raise AssertionError("KVM must not be probed")


@pytest.mark.parametrize("requested", [None, "auto"])
@pytest.mark.parametrize(("works", "name"), [(True, "kvm"), (False, "tcg")])
def test_choose_auto_probes_kvm_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, requested: str | None, works: bool, name: str
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)
    (cache / "accel-earlier-boot").write_text("kvm")
    assert accelerator.choose(requested, lambda: works) == name
    assert accelerator.choose(requested, fail) == name
    assert [path.read_text() for path in cache.glob("accel-*")] == [name]
    assert accelerator.result_file().exists()


def test_choose_auto_without_kvm_device_returns_tcg(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert accelerator.choose(None, fail) == "tcg"
    assert list(cache.iterdir()) == []


def test_choose_prefers_argument_to_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accelerator.choose("kvm", fail) == "kvm"
    monkeypatch.setenv("IVSHMEM_ACCEL", "kvm")
    assert (accelerator.choose(None, fail), accelerator.choose("tcg", fail)) == ("kvm", "tcg")


def test_choose_unknown_accelerator_raises_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IVSHMEM_ACCEL", "xen")
    with pytest.raises(Invalid, match="xen"):
        accelerator.choose(None, fail)
