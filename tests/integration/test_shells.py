# SPDX-License-Identifier: BSD-3-Clause
"""Completion of commands, options and metadata names in bash, fish and zsh."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import eal
import ivshmem

BIN = Path(sys.executable).parent

# Each script prints the completions of the last word of its arguments, one per line.
BASH = """
eval "$(_IVSHMEM_COMPLETE=bash_source ivshmem)"
complete -p ivshmem >&2
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ivshmem_completion ivshmem
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
_IVSHMEM_COMPLETE=fish_source ivshmem | source
complete -C "$argv"
"""
ZSH = """
PS1='ready> '
unsetopt BEEP
autoload -U compinit && compinit -u -D
eval "$(_IVSHMEM_COMPLETE=zsh_source ivshmem)"
print set up
"""
CASES = [
    (["ivshmem", "expo"], "exposure"),
    (["ivshmem", "down", "--fo"], "--force"),
    (["ivshmem", "dump", "oth"], "other"),
    (["ivshmem", "plug", "oth"], "other"),
    (["ivshmem", "cmdline", "vm0", "oth"], "other"),
]


@pytest.fixture(autouse=True)
def _names(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vm0", "vm1", "other"):
        ivshmem.metadata_create(name)
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    return found


def completions(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return sorted(line.split("\t")[0] for line in done.stdout.splitlines())  # fish adds a tab and a description


def test_bash_completes_commands_options_and_names() -> None:
    for words, expected in CASES:
        assert completions(shell("bash"), "--norc", "-c", BASH, "bash", *words) == [expected]
    assert completions(shell("bash"), "--norc", "-c", BASH, "bash", "ivshmem", "unplug", "vm") == ["vm0", "vm1"]


def test_fish_completes_commands_options_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # fish stores its history there
    for words, expected in CASES:
        assert completions(shell("fish"), "--no-config", "-c", FISH, " ".join(words)) == [expected]
    assert completions(shell("fish"), "--no-config", "-c", FISH, "ivshmem unplug vm") == ["vm0", "vm1"]


class Terminal:
    """An interactive zsh on a pseudo-terminal; zsh completes only there."""

    def __init__(self, home: Path) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "HOME": str(home), "ZDOTDIR": str(home)}
        command = [shell("zsh"), "-f", "-i"]
        self._zsh = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    def type(self, text: str, until: str) -> str:
        """Type the text and return the terminal's output up to and including `until`."""
        os.write(self._master, text.encode())
        output = ""
        deadline = time.monotonic() + 20
        while until not in output:
            left = deadline - time.monotonic()
            assert left > 0, f"no {until!r} in {output!r}"
            if select.select([self._master], [], [], left)[0]:
                output += os.read(self._master, 65536).decode(errors="replace")
        return output

    def close(self) -> None:
        self._zsh.kill()
        self._zsh.wait()
        os.close(self._master)


@pytest.fixture
def zsh(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def test_zsh_completes_commands_options_and_names(zsh: Terminal) -> None:
    zsh.type(ZSH, "set up\r\n")
    for words, expected in CASES:
        *before, last = words
        # ^U erases the line, so that no command runs.
        zsh.type(" ".join([*before, last]) + "\t", expected.removeprefix(last))
        zsh.type("\x15print erased\r", "\nerased")
