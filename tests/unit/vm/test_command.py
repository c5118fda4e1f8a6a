# SPDX-License-Identifier: BSD-3-Clause
"""Command line of QEMU as a pure function, and the values that VmConfig refuses."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eal.errors import Invalid
from ivshmem.vm.command import job_script, qemu_command
from ivshmem.vm.config import VmConfig
from ivshmem.vm.image import GuestImage


def test_qemu_command_contains_all_values_of_config(tmp_path: Path) -> None:
    image = GuestImage(kernel=Path("/k"), initrd=Path("/i"))
    config = VmConfig(["true"], smp=4, memory=256, qemu_args=["-device", "edu"], qmp=Path("/q,q"), machine="pc")
    command = qemu_command(config, image, "kvm", Path("/folder"))
    options = dict(itertools.pairwise(command))
    assert command[0] == "qemu-system-x86_64"
    assert command[-2:] == ["-device", "edu"]
    assert (options["-machine"], options["-accel"]) == ("pc", "kvm")
    assert (options["-smp"], options["-m"]) == ("4", "256M")
    assert options["-qmp"] == "unix:/q,,q,server=on,wait=off"
    assert (options["-kernel"], options["-initrd"]) == ("/k", "/i")
    assert "-accel tcg,thread=multi" in " ".join(qemu_command(config, image, "tcg", Path("/folder")))


@pytest.mark.parametrize(
    "bad",
    [
        {"command": []},
        {"command": "ls -l"},
        {"command": ["a\0b"]},
        {"command": ["true"], "env": {"A=B": "C"}},
        {"command": ["true"], "smp": 0},
        {"command": ["true"], "memory": 1},
    ],
)
def test_config_with_invalid_value_raises_invalid(bad: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        VmConfig(**bad)


def test_job_script_quotes_command_and_environment() -> None:
    config = VmConfig(["echo", "two words", "$HOME 'quoted'"], env={"GREETING": "it's a=b"})
    script = job_script(config, "token0")
    show = 'printf "%s\\n" "$token" "$@"'
    done = subprocess.run(["sh", "-c", f"{script}{show}"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:3] == ["token0", "env", "-i"]
    assert "GREETING=it's a=b" in lines
    assert lines[-3:] == ["echo", "two words", "$HOME 'quoted'"]
