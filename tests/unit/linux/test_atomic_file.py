# SPDX-License-Identifier: BSD-3-Clause
"""eal.linux.atomic_file: a file is replaced in one step or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eal.linux.atomic_file import replacing, write_text


def test_write_text_replaces_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("first", "größer"):
        write_text(path, text)
        assert path.read_text("utf-8") == text
    assert os.listdir(tmp_path) == ["file"]


def test_open_file_keeps_its_content_when_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with path.open() as opened:
        write_text(path, "new")
        assert opened.read() == "old"


def test_file_changes_only_at_end_of_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_error_in_block_leaves_old_file_and_no_temporary(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
