# SPDX-License-Identifier: BSD-3-Clause
"""States of devices with a metadata file: the documented transitions, and no others."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from eal.pci.device import IvshmemDevice
from eal.probe import prober
from eal.probe.classify import DeviceState, MetadataDevice
from eal.probe.prober import TRANSITIONS, enter


def device_in(state: DeviceState) -> MetadataDevice:
    device = MetadataDevice(IvshmemDevice("0000:00:04.0", Path("/nonexistent")))
    device.state = state
    return device


def test_table_in_docstring_lists_the_transitions() -> None:
    rows = re.findall(r"^\| ([A-Z]+) +\|.*\| ([A-Z, ]+)\|$", prober.__doc__ or "", re.MULTILINE)
    listed = {DeviceState[state]: {DeviceState[name] for name in re.findall("[A-Z]+", row)} for state, row in rows}
    assert listed == TRANSITIONS
    assert set(listed) == set(DeviceState)


@pytest.mark.parametrize(("state", "new_state"), list(product(DeviceState, DeviceState)))
def test_enter_accepts_documented_transitions_only(state: DeviceState, new_state: DeviceState) -> None:
    device = device_in(state)
    if new_state is state or new_state in TRANSITIONS[state]:
        enter(device, new_state, "reason")
        assert (device.state, device.fault) == (new_state, "reason")
    else:
        with pytest.raises(AssertionError):
            enter(device, new_state)
        assert device.state is state
