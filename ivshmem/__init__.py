# SPDX-License-Identifier: BSD-3-Clause
"""ivshmem: the host side. Metadata made and filled, and the QEMU options that give them to virtual machines.

Everything is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ivshmem.metadata.exposure import ExposureWarning
    from ivshmem.metadata.metadata import Metadata, metadata_create, metadata_lookup, qemu_args

__all__ = ["ExposureWarning", "Metadata", "metadata_create", "metadata_lookup", "qemu_args"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ivshmem' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("ivshmem.metadata.metadata"), name)
    return value
