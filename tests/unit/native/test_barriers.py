# SPDX-License-Identifier: BSD-3-Clause
"""Barrier comments in native/: each acquire and release names a partner function that exists and has a barrier.

The form is `release: pairs with NAME() in FILE`, also with `acquire` or `seq_cst`, with several partners joined by
"and". FILE is relative to native/include, native/src or native/binding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[3] / "native"
FOLDERS = ("include", "src", "binding")
FILES = sorted(path for folder in FOLDERS for path in (NATIVE / folder).rglob("*.[ch]"))

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
PARTNER = r"\w+\(\) in [\w/]+\.[ch]"
PAIRING = re.compile(rf"(?:acquire|release|seq_cst): pairs with {PARTNER}(?:(?:,| and) {PARTNER})*")
EXPLICIT = re.compile(r"\bmemory_order_(acquire|release|acq_rel)\b")
SEQ_CST = re.compile(r"\batomic_(store|load|exchange|fetch_\w+)\(")
FUNCTION = re.compile(r"^[A-Za-z][^\n;={}]*?\b(\w+)\((?:[^;{}]*)\)\s*\{.*?^\}", re.DOTALL | re.MULTILINE)


def text_of(comment: str) -> str:
    """Return the words of a comment on one line."""
    return " ".join(re.sub(r"^\s*/?\*+/?", "", line).strip() for line in comment.removesuffix("*/").splitlines())


@dataclass(frozen=True)
class Function:
    """A function definition, and the comment directly before it."""

    name: str
    body: str
    preface: str


def functions_in(source: str) -> list[Function]:
    found = []
    for match in FUNCTION.finditer(source):
        before = source[: match.start()].rstrip()
        preface = before[before.rfind("/*") :] if before.endswith("*/") else ""
        found.append(Function(match[1], match[0], preface))
    return found


def resolve(file: str) -> list[Path]:
    return [path for folder in FOLDERS if (path := NATIVE / folder / file).exists()]


def pairings() -> list[tuple[str, str]]:
    """Return each comment with "pairs with" as (location, text)."""
    found = []
    for path in FILES:
        source = path.read_text()
        for match in COMMENT.finditer(source):
            if "pairs with" in (text := text_of(match[0])):
                found.append((f"{path.relative_to(NATIVE)}:{source[: match.start()].count(chr(10)) + 1}", text))
    return found


def test_scan_finds_functions_and_comments() -> None:
    assert len(pairings()) > 20
    source = (NATIVE / "src/segment.c").read_text()
    names = {function.name for function in functions_in(source)}
    assert {"ivs_segment_check", "ivs_participant_adopt", "participant"} <= names


@pytest.mark.parametrize(("location", "text"), pairings(), ids=[location for location, _ in pairings()])
def test_barrier_partner_exists_and_has_a_barrier(location: str, text: str) -> None:
    form = "release: pairs with NAME() in FILE"
    assert text.count("pairs with") == len(PAIRING.findall(text)), f"{location}: {text!r} must have the form {form!r}"
    for name, file in re.findall(r"(\w+)\(\) in ([\w/]+\.[ch])", text):
        paths = resolve(file)
        assert len(paths) == 1, f"{location}: no file {file} in native/"
        bodies = [function.body for function in functions_in(paths[0].read_text()) if function.name == name]
        assert bodies, f"{location}: no function {name}() in {file}"
        assert EXPLICIT.search(bodies[0]) or SEQ_CST.search(bodies[0]), f"{location}: {name}() in {file} has no barrier"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(NATIVE)) for path in FILES])
def test_function_with_a_barrier_names_its_partner(path: Path) -> None:
    unnamed = []
    for function in functions_in(path.read_text()):
        if EXPLICIT.search(function.body):
            comments = " ".join(map(text_of, COMMENT.findall(function.preface + function.body)))
            if not PAIRING.search(comments):
                unnamed.append(function.name)
    assert not unnamed, f"{path}: these functions must name the partners of their barriers: {unnamed}"
