# SPDX-License-Identifier: BSD-3-Clause
"""EAL options: the subset of DPDK's command line that applies here, and the keywords of eal.init."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

from eal.errors import Invalid, InvalidType
from eal.topology import cpulist

PROC_TYPES = ("auto", "primary", "secondary")
BAR_ACCESSES = ("auto", "sysfs", "devmem")

# DPDK's level names, in the order of their numbers 1 to 8, with Python's levels.
_LEVELS = {
    "emergency": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "notice": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}


@dataclass
class Options:
    """Parsed EAL options.

    `memory` and `socket_mem` (one entry per NUMA node) are allocated at start-up, in MiB. `lcores` are the CPUs to run
    on. `stall_timeout` is in seconds. `rest` are the arguments after `--`.
    """

    file_prefix: str = "rte"
    proc_type: str = "auto"
    memory: int | None = None
    socket_mem: list[int] = field(default_factory=list)
    huge_dir: str | os.PathLike[str] | None = None
    no_huge: bool | None = None
    lcores: list[int] | None = None
    base_virtaddr: int | None = None
    log_level: str | None = None
    sysfs_root: str | os.PathLike[str] | None = None
    bar_access: str = "auto"
    no_pci: bool = False
    recover: bool = False
    stall_timeout: float = 1.0
    rest: list[str] = field(default_factory=list)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Invalid(f"EAL options: {message}")


def _cpus(text: str) -> list[int]:
    return sorted(cpulist.parse_list(text))


def _mask(text: str) -> list[int]:
    return list(cpulist.bits_of(cpulist.parse_mask(text)))


def _socket_mem(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise Invalid(f"--socket-mem must be a list of MiB such as 64,64, got {text!r}") from error


def _address(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise Invalid(f"--base-virtaddr must be an address such as 0x200000000000, got {text!r}") from error


@cache
def _parser() -> _Parser:
    parser = _Parser(prog="EAL", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    add = parser.add_argument
    add("-l", "--lcores", dest="lcores", type=_cpus)
    add("-c", dest="lcores", type=_mask)
    add("-m", "--memory", dest="memory", type=int)
    add("-n", dest="_channels", type=int)  # memory channels: most DPDK command lines have it, no effect here
    add("--file-prefix")
    add("--proc-type", choices=PROC_TYPES)
    add("--huge-dir")
    add("--no-huge", action="store_true")
    add("--no-pci", action="store_true")
    add("--bar-access", choices=BAR_ACCESSES)  # not an option of DPDK
    add("--base-virtaddr", type=_address)
    add("--socket-mem", type=_socket_mem)
    add("--log-level", type=str)
    return parser


def parse(argv: Sequence[str] | None, keywords: dict[str, Any]) -> Options:
    """Parse the arguments up to `--` (without a program name); keywords that are not None take precedence.

    Raise Invalid for an unknown option or an invalid value, InvalidType for a string instead of a list.
    """
    if isinstance(argv, str):
        raise InvalidType("argv must be a list of strings, got one string; use shlex.split()")
    words = list(argv or [])
    rest: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, rest = words[:at], words[at + 1 :]
    found = vars(_parser().parse_args(words))
    found.pop("_channels", None)
    found.update((name, value) for name, value in keywords.items() if value is not None)
    options = Options(**found, rest=rest)
    _check(options)
    return options


def _check(options: Options) -> None:
    if options.proc_type not in PROC_TYPES:
        raise Invalid(f"proc_type must be one of {', '.join(PROC_TYPES)}, got {options.proc_type!r}")
    if options.bar_access not in BAR_ACCESSES:
        raise Invalid(f"bar_access must be one of {', '.join(BAR_ACCESSES)}, got {options.bar_access!r}")
    for name, mib in [("memory", options.memory or 0), *(("socket_mem", m) for m in options.socket_mem)]:
        if not isinstance(mib, int) or mib < 0:
            raise Invalid(f"{name} must be a number of MiB, got {mib!r}")
    base = options.base_virtaddr
    if base is not None and (not isinstance(base, int) or not 0x10000 <= base < 1 << 47 or base % 4096):
        raise Invalid(f"base_virtaddr must be a multiple of 4096 from 0x10000 to 2**47, got {base!r}")
    if not isinstance(options.stall_timeout, int | float) or not 0 <= options.stall_timeout <= 3600:
        raise Invalid(f"stall_timeout must be 0 to 3600 seconds, got {options.stall_timeout!r}")
    if options.lcores is not None:
        options.lcores = sorted(set(options.lcores))
    if options.log_level is not None:
        set_log_level(options.log_level)


def set_log_level(text: str) -> None:
    """Set the level of the logger "eal", or of one logger by PATTERN:LEVEL (DPDK: --log-level).

    LEVEL is a name or a number from 1 (emergency) to 8 (debug). Raise Invalid for another level.
    """
    pattern, _, level = text.rpartition(":")
    names = list(_LEVELS)
    if level.isdigit() and 1 <= int(level) <= len(names):
        level = names[int(level) - 1]
    if level not in _LEVELS:
        raise Invalid(f"--log-level must be one of {', '.join(names)}, or 1 to {len(names)}, got {text!r}")
    logging.getLogger(pattern.rstrip(".*") or "eal").setLevel(_LEVELS[level])
