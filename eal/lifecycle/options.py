# SPDX-License-Identifier: BSD-3-Clause
"""DPDK's EAL options, as far as they mean something here."""

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

# DPDK's levels by name and number, and Python's.
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
    """What eal.init goes by. `memory` and `socket_mem` (by node) in MiB, taken at the start; `lcores`: CPUs to
    run on; `stall_timeout` in seconds.
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
        raise Invalid(f"--socket-mem {text!r} is not a list of MiB such as 64,64") from error


def _address(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise Invalid(f"{text!r} is not an address such as 0x200000000000") from error


@cache
def _parser() -> _Parser:
    parser = _Parser(prog="EAL", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    add = parser.add_argument
    add("-l", "--lcores", dest="lcores", type=_cpus)
    add("-c", dest="lcores", type=_mask)
    add("-m", "--memory", dest="memory", type=int)
    add("-n", dest="_channels", type=int)  # memory channels: accepted, as every DPDK command line has it
    add("--file-prefix")
    add("--proc-type", choices=PROC_TYPES)
    add("--huge-dir")
    add("--no-huge", action="store_true")
    add("--no-pci", action="store_true")
    add("--bar-access", choices=BAR_ACCESSES)  # ours alone
    add("--base-virtaddr", type=_address)
    add("--socket-mem", type=_socket_mem)
    add("--log-level", type=str)
    return parser


def parse(argv: Sequence[str] | None, keywords: dict[str, Any]) -> Options:
    """Options from the arguments up to `--` (no program name), then from the keywords that are not None.

    Raises Invalid for an unknown option or a value that makes no sense.
    """
    if isinstance(argv, str):
        raise InvalidType("argv is a list of strings, not one string")
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
        raise Invalid(f"proc_type {options.proc_type!r}: one of {', '.join(PROC_TYPES)}")
    if options.bar_access not in BAR_ACCESSES:
        raise Invalid(f"bar_access {options.bar_access!r}: one of {', '.join(BAR_ACCESSES)}")
    for what, mib in [("memory", options.memory or 0), *(("socket_mem", m) for m in options.socket_mem)]:
        if not isinstance(mib, int) or mib < 0:
            raise Invalid(f"{what} {mib!r}: a number of MiB")
    base = options.base_virtaddr
    if base is not None and (not isinstance(base, int) or not 0x10000 <= base < 1 << 47 or base % 4096):
        raise Invalid(f"base_virtaddr {base!r}: a multiple of 4096 from 0x10000 to 2**47")
    if not isinstance(options.stall_timeout, int | float) or not 0 <= options.stall_timeout <= 3600:
        raise Invalid(f"stall_timeout {options.stall_timeout!r}: seconds, up to an hour")
    if options.lcores is not None:
        options.lcores = sorted(set(options.lcores))
    if options.log_level is not None:
        set_log_level(options.log_level)


def set_log_level(text: str) -> None:
    """DPDK's --log-level: LEVEL, or PATTERN:LEVEL for one logger below "eal"; a name, or a number from 1 to 8."""
    pattern, _, level = text.rpartition(":")
    names = list(_LEVELS)
    if level.isdigit() and 1 <= int(level) <= len(names):
        level = names[int(level) - 1]
    if level not in _LEVELS:
        raise Invalid(f"--log-level {text!r}: one of {', '.join(names)}, or 1 to {len(names)}")
    logging.getLogger(pattern.rstrip(".*") or "eal").setLevel(_LEVELS[level])
