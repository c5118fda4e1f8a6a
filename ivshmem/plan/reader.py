# SPDX-License-Identifier: BSD-3-Clause
"""Reader: typed access to one TOML table of a plan. Faults are collected with their key paths and never raised."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, TypeVar

from eal.errors import EalError
from eal.text.sizes import parse_size

T = TypeVar("T")
_BARE_KEY = re.compile("[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Fault:
    """One fault of a plan: the TOML key path ("rings.rx.count"; "" for the whole file) and the reason."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


def key_path(*keys: str) -> str:
    """Return the keys as a TOML dotted key, quoted where TOML requires quotes: rings."my ring".count."""
    return ".".join(key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False) for key in keys)


def suggest(word: str, candidates: Iterable[str]) -> str:
    """Return the remedy for an unknown word: the closest candidate as a question, or a list of all candidates."""
    candidates = sorted(candidates)
    near = difflib.get_close_matches(word, candidates, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(map(repr, candidates)) or 'none'}"


class Reader:
    """One table of a plan. The readers of all tables append to the same list `faults`.

    A method that reads a key returns `default` if the key is missing or its value has a wrong type; the wrong type is
    a fault.
    """

    def __init__(self, data: object, faults: list[Fault], *path: str) -> None:
        self.path = path
        self.faults = faults
        self._data: dict[str, Any] = {}
        self._requested: set[str] = set()
        self._is_table = isinstance(data, dict)
        if isinstance(data, dict):
            self._data = data
        else:
            self.fault(f"must be a table, got {data!r}")

    def fault(self, reason: str, *keys: str) -> None:
        """Record a fault of this table, or of a key in it."""
        self.faults.append(Fault(key_path(*self.path, *keys), reason))

    def check(self, call: Callable[[], T], *keys: str) -> T | None:
        """Return the result of `call`. If it raises EalError, record the fault at `keys` and return None."""
        try:
            return call()
        except EalError as error:
            self.fault(str(error), *keys)
            return None

    def has(self, key: str) -> bool:
        return key in self._data

    def require(self, key: str) -> None:
        """Record a fault if the key is missing."""
        if key not in self._data and self._is_table:
            self.fault("is missing", key)

    def reject_unknown_keys(self) -> None:
        """Record a fault for every key that no method has read."""
        for key in self._data:
            if key not in self._requested:
                self.fault(f"unknown key; {suggest(key, self._requested)}", key)

    def raw(self, key: str) -> Any:
        """Return the value of a key without any check, or None."""
        self._requested.add(key)
        return self._data.get(key)

    def _get(self, key: str, default: T, kind: type, noun: str) -> Any:
        self._requested.add(key)
        value = self._data.get(key, default)
        if key in self._data and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            self.fault(f"must be {noun}, got {value!r}", key)
            return default
        return value

    def integer(self, key: str, default: T) -> int | T:
        value: int | T = self._get(key, default, int, "an integer")
        return value

    def text(self, key: str, default: T) -> str | T:
        value: str | T = self._get(key, default, str, "a string")
        return value

    def boolean(self, key: str, default: T) -> bool | T:
        value: bool | T = self._get(key, default, bool, "true or false")
        return value

    def size(self, key: str, default: T) -> int | T:
        """Return a size in bytes, written as an integer or as a string such as "64M"."""
        value = self.raw(key)
        if value is None:
            return default
        try:
            if isinstance(value, str):
                return parse_size(value)
        except ValueError:
            pass
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self.fault(f"must be a size in bytes, or a string such as '64M' or '1G', got {value!r}", key)
        return default

    def owner(self, key: str) -> str | int | None:
        """Return a user or group, by name or by number."""
        value = self.raw(key)
        if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
            return value
        self.fault(f"must be a name or a number, got {value!r}", key)
        return None

    def strings(self, key: str) -> list[str]:
        value = self._get(key, [], list, "a list of names")
        if all(isinstance(item, str) for item in value):
            return list(value)
        self.fault(f"must be a list of names, got {value!r}", key)
        return []

    def flags(self, key: str, kind: type[IntFlag]) -> int:
        """Return the union of the flags that the key lists by name."""
        flags = 0
        for name in self.strings(key):
            if name in kind.__members__:
                flags |= kind[name]
            else:
                self.fault(f"unknown flag {name!r}; {suggest(name, kind.__members__)}", key)
        return flags

    def tables(self, key: str) -> Iterator[tuple[str, Reader]]:
        """Yield the name and the reader of each sub-table of a key."""
        section = self._get(key, {}, dict, "a table of tables")
        for name, data in section.items():
            yield name, Reader(data, self.faults, *self.path, key, name)
