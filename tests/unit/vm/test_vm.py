# SPDX-License-Identifier: BSD-3-Clause
"""VM without a boot: calls that are refused before QEMU starts."""

from __future__ import annotations

import pytest

from eal.errors import Closed, Invalid
from ivshmem.vm.config import VmConfig
from ivshmem.vm.vm import VM


def test_wait_before_start_raises_closed() -> None:
    with pytest.raises(Closed, match="not started"):
        VM(VmConfig(["true"])).wait()


@pytest.mark.vm_image
def test_start_with_one_cpu_under_tcg_raises_invalid() -> None:
    vm = VM(VmConfig(["true"], smp=1, accel="tcg"))
    with pytest.raises(Invalid, match="atomicity"):
        vm.start()
    assert vm.pid is None
