# SPDX-License-Identifier: BSD-3-Clause
"""Checks: the result of one doctor check, with verdict and remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """FAIL: sharing does not work, or corrupts data. WARN: sharing is slow, or something helpful is missing."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """The check of one subject: `value` is the finding as text, `measured` the same as numbers. A verdict other than OK
    has a remedy.
    """

    check: str
    subject: str
    value: str
    verdict: Verdict = Verdict.OK
    remedy: str = ""
    measured: dict[str, Any] = field(default_factory=dict)
