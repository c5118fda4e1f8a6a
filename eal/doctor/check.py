# SPDX-License-Identifier: BSD-3-Clause
"""Checks: the result of one check of doctor, with verdict and remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """FAIL: sharing does not work, or corrupts data. WARN: it is slow, or something is missing that helps."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One check of one thing: `value` is what was found, for people, and `measured` the same as numbers. A verdict
    other than OK has a remedy.
    """

    check: str
    subject: str
    value: str
    verdict: Verdict = Verdict.OK
    remedy: str = ""
    measured: dict[str, Any] = field(default_factory=dict)
