# SPDX-License-Identifier: BSD-3-Clause
"""Create the metadata files of this process's Eal, and look them up by name."""

from __future__ import annotations

import os
from pathlib import Path

from eal.errors import Invalid, NotFound
from eal.lifecycle.startup import current
from eal.memory import hugepages, segment_file
from eal.memory.segment_file import Ownership
from eal.metadata.lookup import open_metadata
from eal.metadata.table_file import METADATA_MAGIC, TableFile
from eal.text.names import check_name
from eal.text.sizes import MIB, is_power_of_two
from ivshmem.metadata.metadata import Metadata
from ivshmem.metadata.names import claim_name, names_lock, new_uuid

CAPACITY = MIB  # bytes of a metadata file: two tables of about 5,000 objects each


def metadata_create(
    name: str,
    *,
    capacity: int = CAPACITY,
    mode: int = 0o600,
    user: str | int | None = None,
    group: str | int | None = None,
) -> Metadata:
    """Create an empty metadata file of this process's Eal (DPDK: rte_ivshmem_metadata_create).

    `name` is unique among all prefixes of the runtime directory. `capacity` is the size of the file in bytes, a power
    of two. `mode`, `user` and `group` are the permissions and the owner of the file.

    Raise Exists, with its owner, if the name is in use; NoMemory if /dev/shm is full.
    """
    check_name(name, "metadata")
    if not isinstance(capacity, int) or not 16384 <= capacity < 1 << 47 or not is_power_of_two(capacity):
        raise Invalid(f"metadata {name!r}: capacity must be a power of two from 16384 to 2**46 bytes, got {capacity!r}")
    segment_file.check_mode(mode, f"metadata {name!r}")
    owner = current()
    with owner.lock(), names_lock(owner.directory.root):
        claim_name(owner.directory, name)
        uuid = new_uuid(owner.directory.root)
        path = hugepages.SHM_DIR / owner.directory.file_name(uuid.hex, "md")
        mapping = segment_file.create(hugepages.tmpfs(), path, capacity, ownership=Ownership(mode, user, group))
        file = TableFile.format(mapping, METADATA_MAGIC, name, uuid, epoch=owner.epoch)
        link = owner.directory.metadata_link(name)
        link.symlink_to(path)
        return Metadata(owner, path, link, file)


def metadata_lookup(name: str) -> Metadata:
    """Return an existing metadata file of this prefix, after `recover` or in a secondary. Raise NotFound or Corrupt."""
    check_name(name, "metadata")
    owner = current()
    link = owner.directory.metadata_link(name)
    if not link.is_symlink():
        existing = ", ".join(map(repr, owner.directory.metadata_names())) or "none"
        raise NotFound(f"file_prefix {owner.file_prefix!r} has no metadata {name!r}; existing: {existing}")
    for child in owner.children():
        if isinstance(child, Metadata) and child.name == name:
            return child
    return Metadata(owner, Path(os.readlink(link)), link, open_metadata(link, writable=True))
