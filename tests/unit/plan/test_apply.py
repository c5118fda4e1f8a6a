# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem up` and `down` in this process: all changes or none, only the difference, and nothing that is in use."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import eal
from eal._native import lib
from eal.lifecycle import cleanup
from eal.memory import hugepages, segment_file
from eal.metadata.records import Table
from eal.runtime import prefix_dir
from ivshmem.cli import cli
from ivshmem.inspect.holders import Holders
from ivshmem.plan import teardown
from ivshmem.plan.apply import up
from ivshmem.plan.load import load

PLAN = """
file_prefix = "{prefix}"
no_huge = true
[groups.vm]
mode = 0o640
[zones.settings]
dtype = [["width", "u4"], ["height", "u4"]]
group = "vm"
[rings.rx]
count = 64
group = "vm"
[rings.tx]
count = 64
[pktmbuf_pools.packets]
n = 8
[metadata.vm0]
zones = ["settings"]
rings = ["rx"]
[metadata.vm1]
readonly = {{ rings = ["tx"], mempools = ["packets"] }}
[vms.web]
metadata = ["vm0", "vm1"]
plug = "1G"
"""


@pytest.fixture
def write(runtime_dir: Path, prefix: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return `write(old, new, ...)`: write PLAN with replaced text, return its path. Run `down` at the end."""

    def make(*changes: str) -> str:
        text = PLAN.format(prefix=prefix)
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "plan.toml").write_text(text)
        return str(tmp_path / "plan.toml")

    yield make
    run("down", "--file-prefix", prefix, "--force")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words, catch_exceptions=False)


def succeed(*words: str) -> str:
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def fail(*words: str) -> str:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    return result.stderr


def table(prefix: str) -> Table:
    found = cleanup.last_table(prefix_dir.PrefixDir(prefix_dir.runtime_dir(), prefix))
    assert found is not None
    return found


def files(prefix: str) -> set[str]:
    return {name for name in os.listdir("/dev/shm") if f".{prefix}." in name}


def names(prefix: str) -> set[str]:
    return {entry.name for entry in table(prefix).entries}


def test_up_creates_all_objects_and_down_removes_them(write: Callable[..., str], prefix: str) -> None:
    done = json.loads(succeed("up", write(), "--json"))
    assert table(prefix).kept
    assert names(prefix) == {"settings", "rx", "tx", "packets"}
    assert {change["action"] for change in done["changes"]} == {"created", "added"}
    args = " ".join(done["vms"]["web"])
    assert args.count("ivshmem-plain") == 4
    assert args.count("readonly=on") == 3
    assert "pref64-reserve=1G" in args
    with eal.init(["--no-pci"], file_prefix=prefix) as app:
        assert app.ring_lookup("rx").capacity == 63
        assert app.memzone_lookup("settings").array().dtype.names == ("width", "height")
        (segment,) = (segment for segment in app.segments() if segment.group == "vm")
        assert os.stat(segment.path).st_mode & 0o777 == 0o640
        app.detach()
    assert succeed("down", write()).startswith(f"removed file_prefix {prefix!r}: ")
    assert files(prefix) == set()
    assert succeed("down", write()) == f"file_prefix {prefix!r}: nothing to remove\n"


def test_up_of_unchanged_plan_changes_nothing(write: Callable[..., str], prefix: str) -> None:
    first = json.loads(succeed("up", write(), "--json"))
    before = (table(prefix), files(prefix))
    again = json.loads(succeed("up", write(), "--json"))
    assert (again["changes"], again["vms"]) == ([], first["vms"])
    assert (table(prefix), files(prefix)) == before
    assert succeed("up", write()).startswith("no change\n")


def test_up_of_changed_plan_applies_the_difference(write: Callable[..., str], prefix: str) -> None:
    succeed("up", write())
    ring = table(prefix).entries
    changed = write("[rings.tx]", "[rings.new]", '"tx"', '"new"', 'rings = ["rx"]', "rings = []\n[metadata.vm2]")
    done = json.loads(run("up", changed, "--json").stdout)
    said = {(change["action"], change["what"]) for change in done["changes"]}
    assert said >= {
        ("created", "ring 'new'"),
        ("freed", "ring 'tx'"),
        ("taken out", "ring 'rx'"),
        ("taken out", "ring 'tx'"),
        ("created", "metadata 'vm2'"),
    }
    assert names(prefix) == {"settings", "rx", "new", "packets"}
    assert {e for e in ring if e.name == "rx"} <= set(table(prefix).entries)


def test_up_refuses_to_change_existing_objects(write: Callable[..., str], prefix: str) -> None:
    succeed("up", write())
    before = (table(prefix), files(prefix))
    text = fail("up", write("count = 64", "count = 128", "n = 8", "n = 9"))
    for fault in (
        "rings.rx.count: must be 64, as in the existing ring, got 128",
        "rings.tx.count: must be 64, as in the existing ring, got 128",
        "pktmbuf_pools.packets.n: must be 8, as in the existing mempool, got 9",
    ):
        assert fault in text
    assert (table(prefix), files(prefix)) == before


def test_up_leaves_objects_of_programs_unchanged(write: Callable[..., str], prefix: str) -> None:
    succeed("up", write())
    with eal.init(["--no-pci"], file_prefix=prefix) as app:
        app.ring_create("other", 8)
        app.detach()
    run("up", write("[rings.tx]\ncount = 64\n", "", 'rings = ["tx"], ', ""))
    assert names(prefix) == {"settings", "rx", "packets", "other"}


def test_up_of_plan_with_fault_creates_nothing(write: Callable[..., str], prefix: str, runtime_dir: Path) -> None:
    message = fail("up", write("count = 64", "count = 63"))
    assert "rings.rx.count: " in message
    assert "power of two" in message
    assert (files(prefix), list(runtime_dir.iterdir())) == (set(), [])


@pytest.mark.parametrize("applied", [False, True])
def test_up_without_enough_memory_restores_previous_state(
    write: Callable[..., str], prefix: str, applied: bool
) -> None:
    if applied:
        succeed("up", write())
    before = files(prefix)
    more = '[groups.first]\nsize = "4M"\n[groups.big]\n[zones.big]\nlength = "64G"\ngroup = "big"\n'
    big = write("[pktmbuf_pools", f"{more}[pktmbuf_pools")
    assert "pages of 4 KiB required in /dev/shm" in fail("up", big)
    assert files(prefix) == before
    assert succeed("up", write()).startswith("no change\n" if applied else "created ")


def test_up_with_too_large_sum_of_segments_allocates_nothing(
    write: Callable[..., str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each segment fits alone. Allocating the first ones would starve other processes before the last one fails."""
    monkeypatch.setattr(hugepages, "_available_memory", lambda: 24 << 20)
    allocated: list[int] = []
    fallocate = os.posix_fallocate

    def count(fd: int, offset: int, size: int) -> None:
        allocated.append(size)
        fallocate(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", count)
    large = "".join(f'[groups.g{i}]\nsize = "16M"\n' for i in range(2))
    message = fail("up", write("[pktmbuf_pools", f"{large}[pktmbuf_pools"))
    assert "pages of 4 KiB required in /dev/shm, 6144 available" in message
    assert (files(prefix), sum(allocated) < 1 << 20) == (set(), True)


@pytest.mark.parametrize("applied", [False, True])
def test_interrupted_up_restores_previous_state(
    write: Callable[..., str], prefix: str, applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if applied:
        succeed("up", write())
    before = (files(prefix), table(prefix) if applied else None)
    monkeypatch.setattr(segment_file, "CHUNK", 1 << 20)
    plan = load(Path(write("[rings.tx]", '[groups.g]\nsize = "8M"\n[rings.tx]')))

    def interrupt(_: int) -> Any:
        return lambda _: signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        up(plan, interrupt)
    assert files(prefix) == before[0]
    if before[1] is not None:
        now = table(prefix)
        assert (now.segments, now.entries) == (before[1].segments, before[1].entries)


APP = """
import sys, eal
app = eal.init(["--no-pci"], file_prefix=sys.argv[1], no_huge=True)
if sys.argv[2:] == ["own"]:
    eal.ring_create("own", 8)
else:
    eal.ring_lookup("tx")
print(flush=True)
sys.stdin.readline()
app.detach()
"""


def test_up_and_down_refuse_objects_held_by_live_process(
    write: Callable[..., str], prefix: str, peer: Callable[..., Any]
) -> None:
    succeed("up", write())
    app = peer(APP)
    app.hear()
    before = files(prefix)
    for words in (["down", write()], ["down", "--file-prefix", prefix]):
        assert f"(pid {app.pid})" in fail(*words)
    without = write("[rings.tx]\ncount = 64\n", "", 'rings = ["tx"], ', "")
    text = fail("up", without)
    assert "ring 'tx' cannot be freed: its segment is held by" in text
    assert f"(pid {app.pid})" in text
    assert files(prefix) == before
    app.end()
    assert run("up", without).exit_code == 0
    assert succeed("down", without)


def test_down_counts_guest_threads_only_if_processes_are_hidden(
    write: Callable[..., str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If /proc shows every process and none holds a file, the VM of the guest threads has ended."""
    succeed("up", write())
    with eal.init(["--no-pci"], file_prefix=prefix, no_huge=True) as app:
        base = eal.segments()[0].mapping.pointer()
        assert lib.ivs_participant_claim(base, 0x1234_5678 << 32 | 1, 77) >= 0
        app.detach()
    monkeypatch.setattr(teardown, "find_holders", lambda *_: Holders([], hidden=True))
    assert "it is held by 1 guest thread, probably in a VM of another user" in fail("down", write())
    monkeypatch.setattr(teardown, "find_holders", lambda *_: Holders([], hidden=False))
    assert succeed("down", write())
    assert files(prefix) == set()


def test_down_with_force_removes_held_files(write: Callable[..., str], prefix: str, peer: Callable[..., Any]) -> None:
    succeed("up", write())
    app = peer(APP)
    app.hear()
    forced = run("down", write(), "--force")
    assert (forced.exit_code, files(prefix)) == (0, set())
    assert f"(pid {app.pid})" in forced.stderr


def test_up_refuses_prefix_of_running_program(write: Callable[..., str], prefix: str, peer: Callable[..., Any]) -> None:
    app = peer(APP, "own")
    app.hear()
    assert "belongs to a running program" in fail("up", write())
    assert names(prefix) == {"own"}


def test_down_without_exactly_one_target_is_invalid_usage(runtime_dir: Path) -> None:
    for words in (["down"], ["down", "plan.toml", "--file-prefix", "x"]):
        assert run(*words).exit_code == 2
