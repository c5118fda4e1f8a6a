# SPDX-License-Identifier: BSD-3-Clause
"""Metadata compared with a model: a table has the content of a plain list after any sequence of additions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eal
import ivshmem
from eal.metadata.lookup import open_metadata
from eal.metadata.records import Kind

CAPACITY = 16 << 10
ROOM = (CAPACITY - 4096) // 2  # bytes of one of the two tables
ROW = 96  # bytes of a segment or entry; the header of a table has 64

Range = tuple[UUID, int, int]
Row = tuple[Kind, str, UUID, int, int]


@dataclass(frozen=True)
class Thing:
    """An object, the method that adds it, and its row in a table."""

    method: str
    given: Any
    row: Row


@dataclass
class Model:
    """The expected content of a table."""

    rows: list[Row] = field(default_factory=list)
    readonly: dict[UUID, bool] = field(default_factory=dict)

    def add(self, row: Row, readonly: bool) -> type[eal.EalError] | None:
        """Add a row, or return the expected error."""
        kind, name, segment, start, length = row
        for other in self.rows:
            if other[:2] == (kind, name):
                return eal.Exists
            if other[2] == segment and start < other[3] + other[4] and other[3] < start + length:
                return eal.Invalid
        if self.readonly.get(segment, readonly) != readonly:
            return eal.Invalid
        if 64 + ROW * (len(self.rows) + 1 + len({*self.readonly, segment})) > ROOM:
            return eal.NoMemory
        self.rows.append(row)
        self.readonly[segment] = readonly
        return None


def thing(method: str, kind: Kind, given: Any) -> Thing:
    zone = given if isinstance(given, eal.Memzone) else given.memzone
    return Thing(method, given, (kind, given.name, zone.segment.uuid, zone.offset, zone.length))


def make_things() -> list[Thing]:
    """Create zones, rings and mempools in three groups, also as zones, and enough of them to fill a table."""
    things = []
    for group in ("a", "b", "c"):
        for number in range(18):
            zone = eal.memzone_reserve(f"{group}{number}", 64 + number, group=group)
            things.append(thing("add_memzone", Kind.MEMZONE, zone))
        for number in range(3):
            ring = eal.ring_create(f"{group}{number}", 8, group=group)
            pool = eal.mempool_create(f"{group}{number}", 4, 64, group=group)
            things.append(thing("add_ring", Kind.RING, ring))
            things.append(thing("add_memzone", Kind.MEMZONE, ring.memzone))
            things.append(thing("add_mempool", Kind.MEMPOOL, pool))
            things.append(thing("add_memzone", Kind.MEMZONE, pool.memzone))
    return things


@pytest.fixture
def things(primary: eal.Eal) -> list[Thing]:
    return make_things()


def add(metadata: ivshmem.Metadata, thing: Thing, readonly: bool) -> type[eal.EalError] | None:
    keywords = {"readonly": True} if readonly else {}
    try:
        getattr(metadata, thing.method)(thing.given, **keywords)
    except eal.EalError as error:
        return type(error)
    return None


def content(metadata: ivshmem.Metadata) -> tuple[list[Row], dict[UUID, bool]]:
    """Return the content of the file, mapped again as in a guest."""
    table = open_metadata(Path(metadata.path)).read()
    rows = [(e.kind, e.name, table.segments[e.segment].uuid, e.offset, e.length) for e in table.entries]
    return rows, {segment.uuid: segment.readonly for segment in table.segments}


# Half of the steps use the same few objects, because random ones rarely repeat or overlap.
steps = st.lists(st.tuples(st.one_of(st.integers(0, 89), st.sampled_from([18, 19, 20, 21, 0, 30])), st.booleans()))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_random_additions_match_model(things: list[Thing], steps: list[tuple[int, bool]]) -> None:
    model = Model()
    with ivshmem.metadata_create("vm0", capacity=CAPACITY) as metadata:
        for index, wanted in steps:
            chosen = things[index]
            readonly = wanted and chosen.method == "add_memzone"
            before = Path(metadata.path).read_bytes()
            expected = model.add(chosen.row, readonly)
            assert add(metadata, chosen, readonly) == expected, (chosen, readonly, model.rows)
            if expected is not None:
                assert Path(metadata.path).read_bytes() == before
            assert content(metadata) == (model.rows, model.readonly)
        assert {device.uuid: device.readonly for device in metadata.devices()[:-1]} == model.readonly


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(90)))
def test_additions_in_random_order_until_full_match_model(things: list[Thing], order: list[int]) -> None:
    model = Model()
    with ivshmem.metadata_create("vm0", capacity=CAPACITY) as metadata:
        results = [(add(metadata, things[index], False), model.add(things[index].row, False)) for index in order]
        assert [outcome for outcome, _ in results] == [expected for _, expected in results]
        assert eal.NoMemory in [expected for _, expected in results]
        assert content(metadata) == (model.rows, model.readonly)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 89)), max_size=40))
def test_three_metadata_files_are_independent(things: list[Thing], steps: list[tuple[int, int]]) -> None:
    models = [Model() for _ in range(3)]
    made = [ivshmem.metadata_create(f"vm{n}", capacity=CAPACITY) for n in range(3)]
    try:
        for number, index in steps:
            assert add(made[number], things[index], False) == models[number].add(things[index].row, False)
        assert [content(metadata) for metadata in made] == [(model.rows, model.readonly) for model in models]
    finally:
        for metadata in made:
            metadata.close()
