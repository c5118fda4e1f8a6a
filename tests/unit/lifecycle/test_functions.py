# SPDX-License-Identifier: BSD-3-Clause
"""eal.lifecycle.functions: the module functions have the signatures of the Eal methods and forward to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import eal
from eal.lifecycle import functions, startup

NAMES = [name for name, value in vars(functions).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_function_has_signature_of_method(name: str) -> None:
    function = inspect.signature(getattr(eal, name))
    method = inspect.signature(getattr(eal.Eal, name))
    assert [*function.parameters.values()] == [*method.parameters.values()][1:]
    assert function.return_annotation == method.return_annotation
    assert "self" not in function.parameters


@pytest.mark.parametrize("name", NAMES)
def test_function_passes_every_argument_to_method(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[inspect.BoundArguments] = []

    class Recorder:
        def __getattr__(self, called: str) -> Callable[..., object]:
            assert called == name
            return lambda *args, **keywords: calls.append(signature.bind(*args, **keywords))

    signature = inspect.signature(getattr(eal, name))
    monkeypatch.setattr(startup, "current", Recorder)
    given: dict[str, Any] = {parameter: object() for parameter in signature.parameters}
    positional = [
        given[parameter.name] for parameter in signature.parameters.values() if parameter.kind != parameter.KEYWORD_ONLY
    ]
    keywords = {
        parameter.name: given[parameter.name]
        for parameter in signature.parameters.values()
        if parameter.kind == parameter.KEYWORD_ONLY
    }
    getattr(eal, name)(*positional, **keywords)
    assert [call.arguments for call in calls] == [given]


def test_all_eighteen_functions_are_exported() -> None:
    assert len(NAMES) == 18
    assert set(NAMES) <= set(eal.__all__)
    assert all(getattr(eal, name).__doc__ for name in NAMES)
