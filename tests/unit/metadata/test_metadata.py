# SPDX-License-Identifier: BSD-3-Clause
"""Create metadata: names, capacity, permissions, close, fork."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import eal
import ivshmem
from eal.metadata.lookup import open_metadata
from eal.runtime.prefix_dir import file_stem

MIB = 1 << 20


def files_of(primary: eal.Eal) -> list[str]:
    """Return the names of a prefix's metadata links and metadata files."""
    links = sorted(path.name for path in primary.directory.metadata.iterdir())
    data = sorted(path.name for path in Path("/dev/shm").glob(f"*.{primary.file_prefix}.*.md"))
    return links + data


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "v",
        "x" * 31,
        "ä" * 15 + "x",  # 31 bytes
        ".",
        "..",
        "...",
        "-",
        "--help",
        "a,b=c",
        "two  blanks",
        " ",
        "'\"`$(id)\\",
        "*?[a-z]",
        "{}%s%d%n",
        "vm0.md",
        "lock",
        "registry",
        "RG_ring",
    ],
)
def test_create_accepts_text_of_up_to_31_bytes(primary: eal.Eal, name: str) -> None:
    with ivshmem.metadata_create(name) as metadata:
        assert metadata.name == name
        assert primary.directory.metadata_names() == [name]
        assert ivshmem.metadata_lookup(name) is metadata
        assert open_metadata(Path(metadata.path)).info.name == name
        assert metadata.qemu_args()
    assert files_of(primary) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "must have 1 to 31 bytes, got 0"),
        ("x" * 32, "must have 1 to 31 bytes, got 32"),
        ("ä" * 16, "must have 1 to 31 bytes, got 32"),
        ("a/b", "must not contain '/' or control characters"),
        ("/", "must not contain '/' or control characters"),
        ("../up", "must not contain '/' or control characters"),
        ("nul\0", "must not contain '/' or control characters"),
        ("\0", "must not contain '/' or control characters"),
        ("line\n", "must not contain '/' or control characters"),
        ("tab\t", "must not contain '/' or control characters"),
        ("\x1b[31m", "must not contain '/' or control characters"),
        ("del\x7f", "must not contain '/' or control characters"),
        ("\x9b31m", "must not contain '/' or control characters"),  # CSI, the 8-bit start of an escape sequence
        ("\udcff", "UTF-8"),
    ],
)
def test_create_rejects_invalid_name(primary: eal.Eal, name: str, reason: str) -> None:
    with pytest.raises(eal.Invalid, match="metadata name") as caught:
        ivshmem.metadata_create(name)
    assert reason in str(caught.value)
    assert repr(name) in str(caught.value)
    assert files_of(primary) == []
    with pytest.raises(eal.Invalid):
        ivshmem.metadata_lookup(name)


@pytest.mark.parametrize("name", [None, b"vm0", 0, 1.5, ["vm0"], Path("vm0"), object(), str])
def test_name_of_other_type_raises_invalid_type(primary: eal.Eal, name: Any) -> None:
    for call in (ivshmem.metadata_create, ivshmem.metadata_lookup):
        with pytest.raises(eal.InvalidType, match=f"metadata name must be a str, got {type(name).__name__}"):
            call(name)
        with pytest.raises(TypeError):
            call(name)
    assert files_of(primary) == []


def test_create_existing_name_raises_exists(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("zone", 64))
    before = Path(metadata.path).read_bytes()
    for _ in range(3):
        with pytest.raises(eal.Exists, match="'vm0' already exists in this file_prefix"):
            ivshmem.metadata_create("vm0")
        with pytest.raises(FileExistsError):
            ivshmem.metadata_create("vm0")
    assert Path(metadata.path).read_bytes() == before
    assert len(files_of(primary)) == 2
    metadata.close()
    ivshmem.metadata_create("vm0").close()


def test_similar_names_are_different(primary: eal.Eal) -> None:
    names = ["vm", "vm.", "VM", "vm.md", "vm ", " vm", "vm.md.md", "vm", "vm"]
    made = [ivshmem.metadata_create(name) for name in dict.fromkeys(names)]
    assert primary.directory.metadata_names() == sorted(dict.fromkeys(names))
    assert len({metadata.uuid for metadata in made}) == len(made)


def test_create_and_lookup_without_eal_raise_closed(runtime_dir: Path) -> None:
    for call in (ivshmem.metadata_create, ivshmem.metadata_lookup):
        with pytest.raises(eal.Closed, match=r"call eal\.init\(\) first"):
            call("vm0")


@pytest.mark.parametrize(
    "name", ["lock", "registry", "metadata", "a,b=c  d'e\"f", "ü", "map_x", "*?[a]", "..md", "x" * 128]
)
def test_create_in_prefix_with_unusual_name(runtime_dir: Path, name: str) -> None:
    """A prefix may have the name of a file of this project, or characters special to options, shells and globs."""
    with eal.init(file_prefix=name, no_huge=True) as primary:
        metadata = ivshmem.metadata_create("vm0")
        metadata.add_memzone(eal.memzone_reserve("zone", 64))
        assert len(metadata.devices()) == 2
        assert [path.name for path in runtime_dir.iterdir()] == [name]
        assert primary.directory.metadata_names() == ["vm0"]
    assert list(runtime_dir.iterdir()) == []
    assert list(Path("/dev/shm").glob(f"{file_stem(runtime_dir)}.*")) == []


# --- content ------------------------------------------------------------------------------------------------


def test_new_metadata_is_empty(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    assert (metadata.table.segments, metadata.table.entries) == ((), ())
    assert metadata.table.epoch == primary.epoch
    assert isinstance(metadata.uuid, UUID)
    assert metadata.path == f"/dev/shm/{primary.directory.file_name(metadata.uuid.hex, 'md')}"
    assert [device.is_metadata for device in metadata.devices()] == [True]
    assert repr(metadata) == "<Metadata 'vm0'>"
    found = open_metadata(Path(metadata.path))
    assert (found.info.name, found.info.uuid, found.info.size) == ("vm0", metadata.uuid, MIB)


@pytest.mark.parametrize("capacity", [16 << 10, 32 << 10, MIB, 8 * MIB])
def test_capacity_is_file_size(primary: eal.Eal, capacity: int) -> None:
    metadata = ivshmem.metadata_create("vm0", capacity=capacity)
    found = Path(metadata.path).stat()
    assert found.st_size == capacity
    assert found.st_blocks * 512 == capacity  # all pages are allocated, so a guest's access causes no SIGBUS
    assert metadata.devices()[-1].size == capacity


@pytest.mark.parametrize(
    "capacity",
    [0, 1, -MIB, 4096, 8192, 16383, 16385, 24 << 10, MIB - 1, 3 * MIB, True, None, "1M", 1e6, float(MIB), 1 << 70],
)
def test_create_rejects_invalid_capacity(primary: eal.Eal, capacity: Any) -> None:
    with pytest.raises(eal.Invalid, match="'vm0': capacity"):
        ivshmem.metadata_create("vm0", capacity=capacity)
    assert files_of(primary) == []
    ivshmem.metadata_create("vm0").close()


def test_capacity_beyond_memory_raises_no_memory(primary: eal.Eal) -> None:
    with pytest.raises(eal.NoMemory, match=r"pages of 4 KiB required in /dev/shm"):
        ivshmem.metadata_create("vm0", capacity=1 << 45)
    assert files_of(primary) == []
    ivshmem.metadata_create("vm0").close()


# --- permissions --------------------------------------------------------------------------------------------


def test_default_mode_is_private(primary: eal.Eal) -> None:
    found = Path(ivshmem.metadata_create("vm0").path).stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o600, os.geteuid(), os.getegid())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o666, 0o644])
def test_mode_is_independent_of_umask(primary: eal.Eal, mode: int) -> None:
    before = os.umask(0o077)
    try:
        metadata = ivshmem.metadata_create("vm0", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(metadata.path).stat().st_mode) == mode


@pytest.mark.parametrize("mode", [0, 0o060, 0o400, 0o1600, 0o4755, 1 << 40, -1, "0600", None, 0.5])
def test_create_rejects_invalid_mode(primary: eal.Eal, mode: Any) -> None:
    with pytest.raises(eal.Invalid, match="'vm0': mode"):
        ivshmem.metadata_create("vm0", mode=mode)
    assert files_of(primary) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "group"), [("nobody", "nogroup"), (65534, 65534), (None, "nogroup"), ("nobody", None)]
)
def test_owner_by_name_or_id(primary: eal.Eal, user: Any, group: Any) -> None:
    metadata = ivshmem.metadata_create("vm0", user=user, group=group, mode=0o660)
    found = Path(metadata.path).stat()
    assert found.st_uid == (0 if user is None else 65534)
    assert found.st_gid == (0 if group is None else 65534)
    assert stat.S_IMODE(found.st_mode) == 0o660


@pytest.mark.parametrize("owner", [{"user": "no-such-user"}, {"group": "no-such-group"}])
def test_unknown_owner_raises_not_found(primary: eal.Eal, owner: dict[str, Any]) -> None:
    with pytest.raises(eal.NotFound, match=next(iter(owner.values()))):
        ivshmem.metadata_create("vm0", **owner)
    assert files_of(primary) == []
    ivshmem.metadata_create("vm0").close()


# --- close --------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[ivshmem.Metadata], object]] = {
    "table": lambda metadata: metadata.table,
    "devices": lambda metadata: metadata.devices(),
    "qemu_args": lambda metadata: metadata.qemu_args(),
    "cmdline": lambda metadata: metadata.cmdline(),
    "dump": lambda metadata: metadata.dump(open(os.devnull, "w")),
    "add_memzone": lambda metadata: metadata.add_memzone(eal.memzone_lookup("zone")),
    "add_ring": lambda metadata: metadata.add_ring(eal.ring_lookup("ring")),
    "add_mempool": lambda metadata: metadata.add_mempool(eal.mempool_lookup("pool")),
    "vm": lambda metadata: ivshmem.qemu_args(metadata),
}


@pytest.fixture
def objects(primary: eal.Eal) -> eal.Eal:
    eal.memzone_reserve("zone", 64)
    eal.ring_create("ring", 8)
    eal.mempool_create("pool", 8, 64)
    return primary


@pytest.mark.parametrize("use", USES)
def test_use_after_close_raises_closed(objects: eal.Eal, use: str) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.close()
    with pytest.raises(eal.Closed, match="metadata 'vm0' is closed"):
        USES[use](metadata)
    assert repr(metadata) == "<Metadata 'vm0' closed>"


def test_close_removes_files(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    assert len(files_of(primary)) == 2
    metadata.close()
    metadata.close()
    assert files_of(primary) == []
    assert primary.children() == []


def test_exception_in_with_block_removes_files(primary: eal.Eal) -> None:
    with pytest.raises(ZeroDivisionError), ivshmem.metadata_create("vm0"):
        _ = 1 // 0
    assert files_of(primary) == []


def test_close_of_eal_removes_files(objects: eal.Eal) -> None:
    made = [ivshmem.metadata_create(f"vm{n}") for n in range(5)]
    for metadata in made:
        metadata.add_memzone(eal.memzone_lookup("zone"))
    objects.close()
    assert not objects.directory.path.exists()
    assert list(Path("/dev/shm").glob(f"*.{objects.file_prefix}.*")) == []
    for metadata in made:
        with pytest.raises(eal.Closed):
            _ = metadata.table
        metadata.close()


def test_close_after_manual_removal_succeeds(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    Path(metadata.path).unlink()
    primary.directory.metadata_link("vm0").unlink()
    metadata.close()
    ivshmem.metadata_create("vm0").close()


def test_close_keeps_new_metadata_of_same_name(primary: eal.Eal) -> None:
    """The link was removed manually or by a secondary, and the name was used again."""
    first = ivshmem.metadata_create("vm0")
    primary.directory.metadata_link("vm0").unlink()
    second = ivshmem.metadata_create("vm0")
    first.close()
    assert ivshmem.metadata_lookup("vm0") is second
    assert primary.directory.metadata_names() == ["vm0"]
    assert not Path(first.path).exists()
    assert Path(second.path).exists()


def test_listed_object_is_freed_only_after_close(objects: eal.Eal) -> None:
    zone = eal.memzone_lookup("zone")
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(zone)
    metadata.add_ring(eal.ring_lookup("ring"))
    metadata.add_mempool(eal.mempool_lookup("pool"))
    frees: list[Callable[[], object]] = [
        lambda: eal.memzone_free(zone),
        lambda: eal.ring_free(eal.ring_lookup("ring")),
        lambda: eal.mempool_free(eal.mempool_lookup("pool")),
    ]
    for free in frees:
        with pytest.raises(eal.InUse, match="is listed in metadata 'vm0'"):
            free()
    metadata.close()
    eal.memzone_free(zone)
    eal.ring_free(eal.ring_lookup("ring"))
    eal.mempool_free(eal.mempool_lookup("pool"))


# --- fork ---------------------------------------------------------------------------------------------------


def in_child(check: Callable[[], None]) -> None:
    """Run a check in a forked child, and fail if it raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        message = b""
        try:
            check()
        except BaseException as error:
            message = repr(error).encode()
        os.write(writer, message or b"ok")
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    assert said == "ok"


def test_metadata_is_closed_in_forked_child(objects: eal.Eal) -> None:
    made = [ivshmem.metadata_create(f"vm{n}") for n in range(4)]
    before = files_of(objects)

    def check() -> None:
        for metadata in made:
            for use in USES.values():
                with pytest.raises(eal.Closed):
                    use(metadata)
            metadata.close()
        with pytest.raises(eal.Closed):
            ivshmem.metadata_create("vm9")

    in_child(check)
    assert files_of(objects) == before
    for metadata in made:
        metadata.add_memzone(eal.memzone_lookup("zone"))
        assert len(metadata.devices()) == 2
