# SPDX-License-Identifier: BSD-3-Clause
"""eal.linux.lockdown: the kernel lockdown mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from eal.linux.lockdown import lockdown


@pytest.mark.parametrize(
    ("text", "mode"),
    [("[none] integrity confidentiality\n", "none"), ("none [integrity] confidentiality\n", "integrity"), ("", None)],
)
def test_lockdown_returns_mode_in_brackets_or_none(tmp_path: Path, text: str, mode: str | None) -> None:
    (tmp_path / "lockdown").write_text(text)
    assert lockdown(tmp_path) == mode
    assert lockdown(tmp_path / "not mounted") is None
