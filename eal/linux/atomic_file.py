# SPDX-License-Identifier: BSD-3-Clause
"""Replace a file in one step: readers see the old content or the new one, also after a crash of the writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, and rename that file to `path` at the end of the block.

    After an exception the temporary file is removed and `path` is unchanged. One writer per process at a time.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")
