# SPDX-License-Identifier: BSD-3-Clause
"""Functions of native/binding/ have a caller: they exist for Python only."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
DECLARATION = re.compile(r"^\w[\w *]*?\b(ivs_\w+)\(", re.MULTILINE)


def test_every_function_of_the_binding_has_a_caller() -> None:
    binding = ROOT / "native" / "binding"
    headers = sorted(binding.glob("*.h"))
    declared = {name: header.stem for header in headers for name in DECLARATION.findall(header.read_text())}
    assert len(declared) > 30
    sources = [path for package in ("eal", "ivshmem") for path in (ROOT / package).rglob("*.py")]
    python = "\n".join(path.read_text() for path in sources)
    c_sources = {path.stem: path.read_text() for path in binding.glob("*.c")}
    unused = [
        name
        for name, module in declared.items()
        if not re.search(rf"\blib\.{name}\b", python)
        and not any(re.search(rf"\b{name}\b", text) for stem, text in c_sources.items() if stem != module)
    ]
    assert unused == []
