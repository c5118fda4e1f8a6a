# SPDX-License-Identifier: BSD-3-Clause
"""eal.jit: ring and mempool calls in functions compiled by numba."""

from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

import eal
from eal import jit


@njit(nogil=True)
def forward(source, target, elements, rounds):
    """Move bursts from one ring to another; return the number of elements or the first negative errno."""
    moved = 0
    for _ in range(rounds):
        n = jit.ring_dequeue_burst(source, elements, len(elements))
        if n < 0:
            return n
        done = jit.ring_enqueue_bulk(target, elements, n)
        if done < 0:
            return done
        moved += done
    return moved


@pytest.mark.parametrize(("dtype", "shape"), [("u4", ()), ("u8", ()), ("u1", (64,)), ("f4", (3,)), ("c16", ())])
def test_compiled_loop_moves_elements_between_rings(primary: eal.Eal, dtype: str, shape: tuple[int, ...]) -> None:
    elem_size = np.empty(shape, dtype).nbytes
    source, target = (primary.ring_create(name, 256, elem_size=elem_size) for name in ("source", "target"))
    sent = np.arange(100 * max(1, int(np.prod(shape)))).astype(dtype).reshape(100, *shape)
    assert source.enqueue_bulk(sent) == 100
    assert forward(source.handle, target.handle, np.zeros((32, *shape), dtype), 5) == 100
    received = np.zeros_like(sent)
    assert target.dequeue_bulk(received) == 100
    assert np.array_equal(received, sent)


def test_bulk_moves_all_or_nothing_and_burst_moves_available(primary: eal.Eal) -> None:
    @njit
    def work(ring, elements):
        return (
            jit.ring_enqueue_bulk(ring, elements, 8),
            jit.ring_enqueue_burst(ring, elements, 8),
            jit.ring_enqueue_burst(ring, elements, 8),
            jit.ring_count(ring),
            jit.ring_dequeue_bulk(ring, elements, 8),
            jit.ring_dequeue_bulk(ring, elements, 8),
            jit.ring_dequeue_burst(ring, elements, 8),
        )

    ring = primary.ring_create("ring", 10, flags=eal.RingFlag.EXACT_SZ)
    assert work(ring.handle, np.arange(8, dtype=np.uint64)) == (8, 2, 0, 10, 8, 0, 2)


def test_compiled_get_and_put_keep_mempool_complete(primary: eal.Eal) -> None:
    @njit
    def get_write_put(pool, objects, indices):
        for iteration in range(1000):
            if jit.mempool_get_bulk(pool, indices, 16) != 16:
                return -iteration
            for index in indices:
                objects[index, 0] = (objects[index, 0] + 1) % 256
            jit.mempool_put_bulk(pool, indices, 16)
        return 1000

    pool = primary.mempool_create("pool", 64, 32, cache_size=8)
    assert get_write_put(pool.handle, pool.array, np.zeros(16, np.uint32)) == 1000
    assert pool.available == 64
    assert pool.view("u1", 32)[:, 0].astype(int).sum() % 256 == 16_000 % 256
    assert pool.audit().ok


def test_get_from_empty_pool_returns_0_and_put_of_invalid_index_returns_einval(primary: eal.Eal) -> None:
    @njit
    def get(pool, indices):
        return jit.mempool_get_bulk(pool, indices, len(indices))

    @njit
    def put(pool, indices):
        return jit.mempool_put_bulk(pool, indices, len(indices))

    pool = primary.mempool_create("pool", 8, 32)
    indices = np.zeros(8, np.uint32)
    assert get(pool.handle, indices) == 8
    assert get(pool.handle, indices.copy()) == 0
    assert put(pool.handle, np.array([8], np.uint32)) == -errno.EINVAL
    assert put(pool.handle, indices) == 8
    assert pool.available == 8


def test_too_short_array_returns_einval_and_moves_nothing(primary: eal.Eal) -> None:
    @njit
    def overrun(ring, elements, n):
        return jit.ring_enqueue_burst(ring, elements, n), jit.ring_dequeue_burst(ring, elements, n)

    ring = primary.ring_create("ring", 64, elem_size=16)
    elements = np.zeros((4, 2), np.uint64)
    for n in (5, 1 << 31, -1):
        assert overrun(ring.handle, elements, n) == (-errno.EINVAL, -errno.EINVAL)
    assert ring.empty
    assert overrun(ring.handle, elements, 4) == (4, 4)
    with pytest.raises(eal.Invalid, match=r"'ring'.*too short"):
        jit.check(-errno.EINVAL, ring)
    assert jit.check(4, ring) == 4


def test_unsupported_array_raises_typing_error_at_compile_time(primary: eal.Eal) -> None:
    @njit
    def dequeue(ring, elements):
        return jit.ring_dequeue_burst(ring, elements, 1)

    @njit
    def get(pool, indices):
        return jit.mempool_get_bulk(pool, indices, 1)

    ring = primary.ring_create("ring", 64)
    readonly = np.zeros(4, np.uint64)
    readonly.flags.writeable = False
    with pytest.raises(TypingError, match="C-contiguous"):
        dequeue(ring.handle, np.zeros(8, np.uint64)[::2])
    with pytest.raises(TypingError, match="read-only"):
        dequeue(ring.handle, readonly)
    pool = primary.mempool_create("pool", 8, 32)
    with pytest.raises(TypingError, match="uint32"):
        get(pool.handle, np.zeros(4, np.int64))


def test_calls_from_python_return_number_of_elements(primary: eal.Eal) -> None:
    ring = primary.ring_create("ring", 64)
    elements = np.arange(8, dtype=np.uint64)
    assert jit.ring_enqueue_burst(ring.handle, elements, 8) == 8
    assert jit.ring_count(ring.handle) == 8
    assert jit.ring_dequeue_bulk(ring.handle, elements[::-1].copy(), 8) == 8


def test_old_handle_of_closed_object_returns_eshutdown(primary: eal.Eal) -> None:
    ring, pool = primary.ring_create("ring", 64), primary.mempool_create("pool", 8, 32)
    ring_handle, pool_handle = ring.handle, pool.handle
    primary.close()
    elements, indices = np.zeros(4, np.uint64), np.zeros(4, np.uint32)
    assert forward(ring_handle, ring_handle, elements, 1) == -errno.ESHUTDOWN
    with pytest.raises(eal.Closed, match="pool 'pool'"):
        jit.check(jit.mempool_get_bulk(pool_handle, indices, 4), pool)
    for closed in (ring, pool):
        with pytest.raises(eal.Closed):
            _ = closed.handle


def test_import_without_numba_fails_only_for_jit_and_names_extra() -> None:
    program = (
        "import sys\n"
        "sys.modules['numba'] = None\n"
        "import eal, eal.ring.ring, eal.mempool.mempool\n"
        "try:\n"
        "    import eal.jit\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert "numba" in run.stdout
    assert "pip install 'ivshmem[jit]'" in run.stdout
