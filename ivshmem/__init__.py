# SPDX-License-Identifier: BSD-3-Clause
"""ivshmem: the host side. It creates metadata files and the QEMU options that pass them to virtual machines.

All names are imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eal.lazy_exports import export_lazily

if TYPE_CHECKING:
    from ivshmem.metadata.create import metadata_create, metadata_lookup
    from ivshmem.metadata.exposure import ExposureWarning
    from ivshmem.metadata.metadata import Metadata, qemu_args

__all__ = ["ExposureWarning", "Metadata", "metadata_create", "metadata_lookup", "qemu_args"]

# The imports of the block above, as they happen at run time.
export_lazily(
    __name__,
    {
        "ExposureWarning": "ivshmem.metadata.exposure",
        "Metadata": "ivshmem.metadata.metadata",
        "metadata_create": "ivshmem.metadata.create",
        "metadata_lookup": "ivshmem.metadata.create",
        "qemu_args": "ivshmem.metadata.metadata",
    },
)
