# SPDX-License-Identifier: BSD-3-Clause
"""Guest image: missing programs, the cached initramfs, interrupted and concurrent builds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eal.errors import NotFound
from ivshmem.vm import image
from ivshmem.vm.config import VmConfig
from ivshmem.vm.vm import VM

pytestmark = pytest.mark.vm_image


def test_start_without_programs_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert image.missing() == []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IVSHMEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image, "BUSYBOX", tmp_path / "busybox")
    vm = VM(VmConfig(["true"]))
    with pytest.raises(NotFound) as caught:
        vm.start()
    for what in (
        "program qemu-system-x86_64",
        "program cpio",
        "static",
        "kernel",
        "apt-get install qemu-system-x86 ",
    ):
        assert what in str(caught.value)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache that contains only a link to the real kernel."""
    kernel = image.prepare().kernel.parent
    directory = tmp_path / "cache"
    directory.mkdir()
    (directory / kernel.name).symlink_to(kernel)
    monkeypatch.setenv("IVSHMEM_CACHE", str(directory))
    return directory


def test_initramfs_is_built_once_and_again_after_a_change_of_init(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = image.prepare()
    built = first.initrd.stat().st_mtime_ns
    assert image.prepare() == first
    assert first.initrd.stat().st_mtime_ns == built
    monkeypatch.setattr(image, "INIT", image.INIT + "# edited\n")
    second = image.prepare()
    assert second.initrd != first.initrd
    assert second.initrd.parent == cache
    assert second.initrd.read_bytes() != first.initrd.read_bytes()


def test_interrupted_build_leaves_only_the_lock_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(cache.iterdir())
    (cache / ".new-killed").mkdir()  # from a builder that was killed by SIGKILL
    with monkeypatch.context() as patch:
        patch.setattr(image, "_copy_module", interrupt)
        with pytest.raises(KeyboardInterrupt):
            image.prepare()
    assert set(cache.iterdir()) - before == {cache / "lock"}
    assert image.prepare().initrd.exists()


def test_concurrent_builders_return_the_same_image(cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(lambda _: image.prepare(), range(2)))
    assert images[0] == images[1]
    assert {path.name for path in cache.iterdir()} >= {images[0].initrd.name, "lock"}
    assert not list(cache.glob(".new-*"))
