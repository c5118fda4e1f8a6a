# SPDX-License-Identifier: BSD-3-Clause
"""A short run of `make fuzz`, and fuzz tests of the parts of tables that only Python reads."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile
from uuid import UUID

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eal
from eal._native import ffi, lib
from eal.linux.mapping import Mapping
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.metadata.table_file import decode, encode
from eal.text import dtypes

FUZZ = Path(__file__).with_name("fuzz.py")
RUNS = 2500


def test_guest_raises_only_eal_errors_on_damaged_bus() -> None:
    code = f"import sys; sys.path.append({str(FUZZ.parents[2])!r}); sys.argv[0] = {str(FUZZ)!r}\n"
    code += "from tests.fuzz import fuzz\n"
    code += "sys.exit(0 if fuzz.run_python(int(sys.argv[1]), int(sys.argv[2]), 1) else 1)"
    command = [sys.executable, "-P", "-c", code, str(RUNS), str(int(time.time()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


# --- dtypes -------------------------------------------------------------------------------------------------

dtype_texts = st.sampled_from(
    ["<f8", "|O", "O", "<U5", "|V0", "|V2147483647", "<U536870912", "<M8[ns]", "", "a", "(2,3)<f8", "f8,i4", "\0", "=g"]
)
numbers = st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30]) | st.integers(0, 5)
scalars = st.none() | st.booleans() | numbers | st.floats() | dtype_texts | st.text(max_size=4)
field = st.tuples(
    st.text(max_size=3) | st.lists(st.text(max_size=2), max_size=3), dtype_texts, st.lists(numbers, max_size=3)
)
descriptions = st.recursive(scalars | st.lists(field.map(list), max_size=3), lambda inner: st.lists(inner, max_size=3))


@pytest.mark.filterwarnings("ignore:Data type alias:DeprecationWarning")
@settings(deadline=None, max_examples=400)
@given(descriptions.map(json.dumps) | st.text(max_size=30))
@example("[" * 5000)
@example('[["a","<f8",[100000000000000000000]]]')
@example('[["a","<f8",[4611686018427387904,4]]]')
@example("9" * 5000)
def test_restore_any_text_returns_dtype_or_raises_corrupt(text: str) -> None:
    with contextlib.suppress(eal.Corrupt):
        dtype = dtypes.restore(text)
        assert not dtype.hasobject
        assert np.dtype(dtype) is dtype


@pytest.fixture(scope="module")
def zone_memory() -> Segment:
    record = SegmentRecord(UUID(int=7), 1 << 16, 4096, 0, 0, "default", 3)
    with TemporaryFile() as file:
        file.truncate(record.size)
        return Segment(record, Mapping(file.fileno(), record.size), "", socket_id=-1)


critical_dims = st.sampled_from([0, 1, 2, 7, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])


@pytest.mark.filterwarnings("ignore:Data type alias:DeprecationWarning")
@settings(deadline=None, max_examples=400)
@given(descriptions.map(json.dumps), st.lists(critical_dims, max_size=66).map(tuple), st.integers(1, 61440))
@example('"<f8"', (2**32 - 1, 2**32 - 1, 2**32), 64)
@example('"|V0"', (2**63,), 64)
@example('"<f8"', (0, 2**63), 64)
@example('"<f8"', (1,) * 64, 64)
def test_array_of_any_dtype_and_shape_fits_zone_or_raises(
    zone_memory: Segment, text: str, shape: tuple[int, ...], length: int
) -> None:
    zone = Memzone(Entry("z", Kind.MEMZONE, 0, 4096, length, 64, 0, text, shape), zone_memory)
    with contextlib.suppress(eal.EalError):
        array = zone.array()
        assert array.nbytes <= length
        _ = array.tobytes()


# --- tables -------------------------------------------------------------------------------------------------

SEGMENTS = tuple(SegmentRecord(UUID(int=i), 1 << 21, 4096, 0, 0, "default", 3) for i in (1, 2))
TABLE = Table(
    SEGMENTS,
    (
        Entry("zone", Kind.MEMZONE, 0, 4096, 512, dtype='"<f8"', shape=(8, 8)),
        Entry("ring", Kind.RING, 1, 8192, 448),
    ),
)


def test_decode_of_validated_table_succeeds_or_raises_corrupt() -> None:
    """Random bytes in a table with a valid CRC: if the C core accepts the table, decode returns or raises Corrupt."""
    rng = random.Random(seed := time.time_ns())
    valid = encode(TABLE)
    passed = 0
    for number in range(30_000):
        raw = bytearray(valid)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(64, len(raw))
            raw[at] = rng.choice((0, 1, 0x2F, 0x7F, 0x80, 0xC3, 0xFF, rng.randrange(256)))
        if lib.ivs_table_publish(scratch, len(scratch), ffi.from_buffer(raw), len(raw)):  # sets the CRC and validates
            continue
        length = lib.ivs_table_read(scratch, len(scratch), copy)
        assert length > 0, (seed, number)
        with contextlib.suppress(eal.Corrupt):
            table = decode(bytes(ffi.buffer(copy, length)))
            assert all(entry.end <= table.segments[entry.segment].size for entry in table.entries)
            passed += 1
    assert passed > 1000


scratch = ffi.new("unsigned char[16384]")
copy = ffi.new("unsigned char[16384]")
