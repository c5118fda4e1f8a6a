# SPDX-License-Identifier: BSD-3-Clause
"""eal.lifecycle.options: DPDK EAL options and the keywords of eal.init."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eal
from eal.lifecycle.options import Options, parse
from eal.runtime.prefix_dir import file_stem


def parsed(*argv: str, **keywords: Any) -> Options:
    return parse(list(argv), keywords)


def test_parse_without_arguments_returns_defaults() -> None:
    assert parse(None, {}) == Options() == parsed()
    assert (Options().file_prefix, Options().proc_type, Options().stall_timeout) == ("rte", "auto", 1.0)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-l", "0-2,5"], {"lcores": [0, 1, 2, 5]}),
        (["--lcores=3,1"], {"lcores": [1, 3]}),
        (["-c", "0x15"], {"lcores": [0, 2, 4]}),
        (["-m", "64"], {"memory": 64}),
        (["--memory", "64"], {"memory": 64}),
        (["-n", "4"], {}),
        (["--file-prefix", "app"], {"file_prefix": "app"}),
        (["--file-prefix=app", "--proc-type=secondary"], {"file_prefix": "app", "proc_type": "secondary"}),
        (["--huge-dir", "/mnt/h"], {"huge_dir": "/mnt/h"}),
        (["--no-huge"], {"no_huge": True}),
        (["--no-pci"], {"no_pci": True}),
        (["--base-virtaddr", "0x7f0000000000"], {"base_virtaddr": 0x7F0000000000}),
        (["--socket-mem", "64,0,32"], {"socket_mem": [64, 0, 32]}),
        (["-l", "0", "--", "-l", "9", "--", "x"], {"lcores": [0], "rest": ["-l", "9", "--", "x"]}),
        (["--"], {"rest": []}),
    ],
)
def test_parse_accepts_dpdk_option(argv: list[str], expected: dict[str, object]) -> None:
    found = parse(argv, {})
    assert found == Options(**expected)  # type: ignore[arg-type]


def test_keyword_takes_precedence_over_argv() -> None:
    found = parsed("-m", "64", "--file-prefix", "a", "--no-huge", memory=32, file_prefix="b", no_huge=False)
    assert (found.memory, found.file_prefix, found.no_huge) == (32, "b", False)
    assert parsed("-m", "64", memory=None).memory == 64


@pytest.mark.parametrize(
    "argv",
    [
        ["--no-such-option"],
        ["-x"],
        ["--file-pre", "app"],  # an abbreviation
        ["positional"],
        ["-m"],
        ["-m", "much"],
        ["-m", "-1"],
        ["-l", ""],
        ["-l", "2-1"],
        ["-l", "one"],
        ["-c", "xyz"],
        ["--proc-type", "tertiary"],
        ["--base-virtaddr", "here"],
        ["--base-virtaddr", "0x1001"],
        ["--base-virtaddr", "0"],
        ["--base-virtaddr", "0x800000000000"],
        ["--socket-mem", "64,x"],
        ["--socket-mem", "-64"],
        ["--log-level", "loud"],
        ["--log-level", "9"],
        ["--no-huge=yes"],
    ],
    ids=" ".join,
)
def test_init_with_invalid_argv_leaves_no_files(argv: list[str], runtime_dir: Path) -> None:
    with pytest.raises(eal.Invalid):
        eal.init(argv)
    assert os.listdir(runtime_dir) == []


def test_invalid_option_is_named_in_error() -> None:
    with pytest.raises(eal.Invalid, match="--no-such-option"):
        parsed("--no-such-option", "5")
    with pytest.raises(eal.Invalid, match=r"-m.*much"):
        parsed("-m", "much")


@pytest.mark.parametrize("seconds", [0, 0.5, 3600])
def test_parse_accepts_stall_timeout(seconds: float) -> None:
    assert parsed(stall_timeout=seconds).stall_timeout == seconds


@pytest.mark.parametrize("seconds", [-0.1, 3601, float("nan"), float("inf"), "1"])
def test_invalid_stall_timeout_raises_invalid(seconds: object) -> None:
    with pytest.raises(eal.Invalid, match="stall_timeout"):
        parsed(stall_timeout=seconds)


@pytest.mark.parametrize(
    "keywords",
    [
        {"proc_type": "Primary"},
        {"memory": -1},
        {"memory": 1.5},
        {"base_virtaddr": "0x1000000"},
        {"base_virtaddr": 4097},
        {"file_prefix": ""},
        {"file_prefix": "a/b"},
        {"file_prefix": ".."},
        {"file_prefix": "x" * 129},
        {"file_prefix": 5},
        {"file_prefix": "new\nline"},
        {"lcores": [1 << 20]},
    ],
    ids=str,
)
def test_init_with_invalid_keyword_leaves_no_files(keywords: dict[str, Any], runtime_dir: Path) -> None:
    with pytest.raises(eal.Invalid):
        eal.init(no_huge=True, **keywords)
    assert os.listdir(runtime_dir) == []


def test_unknown_keyword_raises_type_error() -> None:
    with pytest.raises(TypeError, match="no_such"):
        eal.init(no_such=1)  # type: ignore[call-arg]


def test_argv_as_string_raises_type_error() -> None:
    with pytest.raises(TypeError, match="list of strings"):
        parse("-l 0", {})


@pytest.mark.parametrize("file_prefix", ["x" * 128, "größe", "a b", "-l", ".hidden", "a.b.c", "%s[x]*?"])
def test_unusual_file_prefix_leaves_no_files(runtime_dir: Path, file_prefix: str) -> None:
    stem = file_stem(runtime_dir)
    with eal.init(file_prefix=file_prefix, no_huge=True) as made:
        eal.memzone_reserve("z", 64)
        (name,) = [name for name in os.listdir("/dev/shm") if name.startswith(stem)]
        assert file_prefix in name
        assert made.file_prefix == file_prefix
        assert file_prefix in os.listdir(runtime_dir)
    assert [name for name in os.listdir("/dev/shm") if name.startswith(stem)] == []
    assert os.listdir(runtime_dir) == []


@pytest.fixture
def log_levels() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("eal", "eal.probe.prober")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("text", "logger", "level"),
    [
        ("debug", "eal", logging.DEBUG),
        ("8", "eal", logging.DEBUG),
        ("1", "eal", logging.CRITICAL),
        ("error", "eal", logging.ERROR),
        ("eal.probe.prober:info", "eal.probe.prober", logging.INFO),
        ("eal.*:warning", "eal", logging.WARNING),
    ],
)
def test_log_level_sets_level_of_logger(log_levels: None, text: str, logger: str, level: int) -> None:
    parsed("--log-level", text)
    assert logging.getLogger(logger).level == level


def test_init_pins_process_to_lcores_and_passes_rest(runtime_dir: Path, prefix: str) -> None:
    allowed = os.sched_getaffinity(0)
    cpu = min(allowed)
    try:
        with eal.init(["-l", str(cpu), "--no-huge", "--", "mine", "-l"], file_prefix=prefix) as made:
            assert os.sched_getaffinity(0) == {cpu}
            assert (made.lcores, made.rest) == ([cpu], ["mine", "-l"])
    finally:
        os.sched_setaffinity(0, allowed)


def test_base_virtaddr_is_address_of_first_segment(runtime_dir: Path, prefix: str) -> None:
    base = 0x3123_4500_0000
    with eal.init(file_prefix=prefix, no_huge=True, base_virtaddr=base):
        first = eal.memzone_reserve("z", 64).segment
        second = eal.memzone_reserve("y", 64, group="g").segment
        assert (first.address, second.address) == (base, base + first.size)
        assert not first.relocated


def test_file_prefixes_have_different_base_addresses(runtime_dir: Path, prefix: str) -> None:
    addresses = set()
    for number in range(5):
        with eal.init(file_prefix=f"{prefix}{number}", no_huge=True):
            addresses.add(eal.memzone_reserve("z", 64).address)
    assert len(addresses) >= 3  # one of 256 base addresses each: three equal ones are unlikely
