# SPDX-License-Identifier: BSD-3-Clause
"""Kernel lockdown: whether the kernel keeps even root from its devices' memory."""

from __future__ import annotations

import re
from pathlib import Path

SECURITYFS = Path("/sys/kernel/security")
HOW_TO_LIFT = "boot with lockdown=none on the kernel's command line (and without Secure Boot, which turns it on)"


def lockdown(folder: Path = SECURITYFS) -> str | None:
    """The mode in force: "none", "integrity" or "confidentiality"; None where the kernel does not say (securityfs is
    not mounted, or the kernel has no lockdown).
    """
    try:
        found = re.search(r"\[(\w+)\]", (folder / "lockdown").read_text())
    except OSError:
        return None
    return found[1] if found else None
