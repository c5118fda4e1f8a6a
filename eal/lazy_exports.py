# SPDX-License-Identifier: BSD-3-Clause
"""Lazy exports: names of a package that are imported at first access, so that importing the package stays cheap."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType


class _LazyExport:
    """Class attribute of a module; the first access replaces it by an entry in the module's dictionary."""

    def __init__(self, home: str) -> None:
        self._home = home

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, module: ModuleType | None, owner: type) -> object:
        if module is None:
            return self
        value = getattr(import_module(self._home), self._name)
        module.__dict__[self._name] = value  # found before this attribute, which has no __set__
        return value


def export_lazily(package: str, homes: Mapping[str, str]) -> None:
    """Export names from a package: each is imported from its home module at first access.

    `homes` maps each name to its module. For type checkers, the package has the same imports under TYPE_CHECKING.
    """

    def list_names(module: ModuleType) -> list[str]:
        return sorted({*module.__dict__, *homes})

    attributes = {name: _LazyExport(home) for name, home in homes.items()}
    kind = type("LazyPackage", (ModuleType,), {**attributes, "__dir__": list_names})
    sys.modules[package].__class__ = kind
