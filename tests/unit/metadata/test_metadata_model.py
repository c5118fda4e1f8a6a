# SPDX-License-Identifier: BSD-3-Clause
"""Metadata against a model: after any sequence of additions a table holds what a plain list says, and no more."""

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
ROOM = (CAPACITY - 4096) // 2  # of one of the two tables
ROW = 96  # bytes of a segment or entry; a table's head has 64

Range = tuple[UUID, int, int]
Row = tuple[Kind, str, UUID, int, int]


@dataclass(frozen=True)
class Thing:
    """Something that can be added: the method for it, the object, and what it would be in a table."""

    method: str
    given: Any
    row: Row


@dataclass
class Model:
    """What a metadata should hold."""

    rows: list[Row] = field(default_factory=list)
    readonly: dict[UUID, bool] = field(default_factory=dict)

    def add(self, row: Row, readonly: bool) -> type[eal.EalError] | None:
        """Adds a row, or gives the error that is due."""
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
    """Zones, rings and pools in three groups, the zones of rings and pools as such, and enough to fill a metadata."""
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
    """What the file says, read afresh as a guest would."""
    table = open_metadata(Path(metadata.path)).read()
    rows = [(e.kind, e.name, table.segments[e.segment].uuid, e.offset, e.length) for e in table.entries]
    return rows, {segment.uuid: segment.readonly for segment in table.segments}


# Few of a thing's neighbours are drawn at random: half the time the same few things come again and again.
steps = st.lists(st.tuples(st.one_of(st.integers(0, 89), st.sampled_from([18, 19, 20, 21, 0, 30])), st.booleans()))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_sequence_of_additions(things: list[Thing], steps: list[tuple[int, bool]]) -> None:
    model = Model()
    with ivshmem.metadata_create("vm0", capacity=CAPACITY) as metadata:
        for index, wish in steps:
            chosen = things[index]
            readonly = wish and chosen.method == "add_memzone"
            before = Path(metadata.path).read_bytes()
            due = model.add(chosen.row, readonly)
            assert add(metadata, chosen, readonly) == due, (chosen, readonly, model.rows)
            if due is not None:
                assert Path(metadata.path).read_bytes() == before
            assert content(metadata) == (model.rows, model.readonly)
        assert {device.uuid: device.readonly for device in metadata.devices()[:-1]} == model.readonly


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(90)))
def test_any_order_up_to_the_brim(things: list[Thing], order: list[int]) -> None:
    model = Model()
    with ivshmem.metadata_create("vm0", capacity=CAPACITY) as metadata:
        said = [(add(metadata, things[index], False), model.add(things[index].row, False)) for index in order]
        assert [outcome for outcome, _ in said] == [due for _, due in said]
        assert eal.NoMemory in [due for _, due in said]
        assert content(metadata) == (model.rows, model.readonly)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 89)), max_size=40))
def test_three_metadata_do_not_meddle(things: list[Thing], steps: list[tuple[int, int]]) -> None:
    models = [Model() for _ in range(3)]
    made = [ivshmem.metadata_create(f"vm{n}", capacity=CAPACITY) for n in range(3)]
    try:
        for which, index in steps:
            assert add(made[which], things[index], False) == models[which].add(things[index].row, False)
        assert [content(metadata) for metadata in made] == [(model.rows, model.readonly) for model in models]
    finally:
        for metadata in made:
            metadata.close()
