# SPDX-License-Identifier: BSD-3-Clause
"""Reader: a TOML table, read key by key; what is wrong is noted with its key path, and nothing is raised."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from enum import IntFlag
from typing import Any, TypeVar

from eal.errors import EalError
from eal.text.sizes import parse_size

T = TypeVar("T")
_BARE = re.compile("[A-Za-z0-9_-]+")


def key_path(*keys: str) -> str:
    """Keys as TOML writes them in one line: rings."my ring".count."""
    return ".".join(key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False) for key in keys)


def closest(word: str, known: Iterable[str]) -> str:
    """Half a sentence that says what a wrong word may have been meant to be, or what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, known)) or 'none'}"


class Reader:
    """`faults` is shared by the readers of a whole plan."""

    def __init__(self, data: object, faults: list[str], *path: str) -> None:
        self.path = path
        self.faults = faults
        self._data: dict[str, Any] = {}
        self._asked: set[str] = set()
        self._is_table = isinstance(data, dict)
        if isinstance(data, dict):
            self._data = data
        else:
            self.fault("a table is expected")

    def fault(self, text: object, *keys: str) -> None:
        where = key_path(*self.path, *keys)
        self.faults.append(f"{where}: {text}" if where else str(text))

    def has(self, key: str) -> bool:
        return key in self._data

    def end(self) -> None:
        """All keys were asked for: those that are left are unknown."""
        for key in self._data:
            if key not in self._asked:
                self.fault(f"unknown key; {closest(key, self._asked)}", key)

    def _get(self, key: str, default: T, kind: type, what: str) -> Any:
        self._asked.add(key)
        value = self._data.get(key, default)
        if key in self._data and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            self.fault(f"{value!r} is not {what}", key)
            return default
        return value

    def need(self, key: str) -> None:
        if key not in self._data and self._is_table:
            self.fault("is missing", key)

    def integer(self, key: str, default: T) -> int | T:
        found: int | T = self._get(key, default, int, "a whole number")
        return found

    def text(self, key: str, default: T) -> str | T:
        found: str | T = self._get(key, default, str, "a string")
        return found

    def boolean(self, key: str, default: T) -> bool | T:
        found: bool | T = self._get(key, default, bool, "true or false")
        return found

    def raw(self, key: str) -> Any:
        self._asked.add(key)
        return self._data.get(key)

    def size(self, key: str, default: T) -> int | T:
        """Bytes, as a number or as text such as "64M"."""
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
        self.fault(f"{value!r} is not a size: bytes, or text such as '64M' or '1G'", key)
        return default

    def owner(self, key: str) -> str | int | None:
        """A user or group, by name or number."""
        value = self.raw(key)
        if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
            return value
        self.fault(f"{value!r} is neither a name nor a number", key)
        return None

    def strings(self, key: str) -> list[str]:
        value = self._get(key, [], list, "a list of names")
        if all(isinstance(item, str) for item in value):
            return list(value)
        self.fault(f"{value!r} is not a list of names", key)
        return []

    def flags(self, key: str, kind: type[IntFlag]) -> int:
        """Flags by their names."""
        found = 0
        for name in self.strings(key):
            if name in kind.__members__:
                found |= kind[name]
            else:
                self.fault(f"no flag {name!r}; {closest(name, kind.__members__)}", key)
        return found

    def tables(self, key: str) -> Iterator[tuple[str, Reader]]:
        """The tables in the table of a key, by name."""
        section = self._get(key, {}, dict, "a table of tables")
        for name, data in section.items():
            yield name, Reader(data, self.faults, *self.path, key, name)

    def check(self, call: Callable[[], T], *keys: str) -> T | None:
        """What a call gives. What it raises is noted at the key that its message begins with, or else at `keys`."""
        try:
            return call()
        except EalError as error:
            _, _, text = str(error).rpartition(f"{self.path[-1]!r}: ") if self.path else ("", "", str(error))
            key, _, rest = text.partition(" ")
            if key in self._asked and (not keys or keys == (key,)):
                self.fault(rest, key)
            else:
                self.fault(text, *keys)
            return None
