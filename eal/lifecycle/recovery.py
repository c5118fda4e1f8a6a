# SPDX-License-Identifier: BSD-3-Clause
"""Recovery of a file_prefix: a new primary writes its epoch into the metadata files of the previous one."""

from __future__ import annotations

import logging
from dataclasses import replace

from eal.errors import EalError
from eal.metadata.lookup import open_metadata
from eal.runtime.prefix_dir import PrefixDir

log = logging.getLogger(__name__)


def raise_metadata_epochs(directory: PrefixDir, epoch: int) -> None:
    """Write the new epoch into each metadata file of the file_prefix; guests keep using the objects it lists."""
    for name in directory.metadata_names():
        try:
            file = open_metadata(directory.metadata_link(name), writable=True)
        except EalError as error:
            log.warning("metadata %r keeps its old epoch: %s", name, error)
            continue
        try:
            file.publish(replace(file.read(), epoch=epoch))
        except EalError as error:
            log.warning("metadata %r keeps its old epoch: %s", name, error)
        finally:
            file.mapping.release()
