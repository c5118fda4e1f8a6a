# SPDX-License-Identifier: BSD-3-Clause
"""Kernel lockdown: the mode that can prevent even root from mapping device memory."""

from __future__ import annotations

import re
from pathlib import Path

SECURITYFS = Path("/sys/kernel/security")
HOW_TO_LIFT = "boot with lockdown=none on the kernel command line and without Secure Boot, which enables lockdown"


def lockdown(folder: Path = SECURITYFS) -> str | None:
    """Return the mode: "none", "integrity" or "confidentiality".

    None if the kernel does not report a mode: securityfs is not mounted, or the kernel does not support lockdown.
    """
    try:
        found = re.search(r"\[(\w+)\]", (folder / "lockdown").read_text())
    except OSError:
        return None
    return found[1] if found else None
