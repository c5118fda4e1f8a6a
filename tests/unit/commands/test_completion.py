# SPDX-License-Identifier: BSD-3-Clause
"""Shell completion: commands, options, and the names of existing metadata and prefixes."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

import eal
import ivshmem
from ivshmem.cli import cli


def completed(*words: str) -> list[str]:
    """Return the completions of the last word."""
    *before, last = words
    found = ShellComplete(cli, {}, "ivshmem", "_IVSHMEM_COMPLETE").get_completions(before, last)
    return [item.value for item in found]


def test_completion_of_commands_and_options() -> None:
    assert {"up", "exposure", "libvirt"} <= set(completed(""))
    assert completed("cloud") == ["cloud-hypervisor"]
    assert completed("down", "--fo") == ["--force"]
    assert completed("up", "--js") == ["--json"]


NAMED = ["dump", "cmdline", "exposure", "libvirt", "cloud-hypervisor", "emulate", "inspect", "plug", "unplug"]


@pytest.mark.parametrize("command", NAMED)
def test_completion_of_metadata_names_and_prefixes(command: str, primary: eal.Eal) -> None:
    for name in ("vm0", "vm1", "other"):
        ivshmem.metadata_create(name)
    assert completed(command, "") == ["other", "vm0", "vm1"]
    assert completed(command, "v") == ["vm0", "vm1"]
    assert completed(command, "--file-prefix", primary.file_prefix[:2]) == [primary.file_prefix]
    assert completed(command, "--file-prefix", "no such", "") == []
