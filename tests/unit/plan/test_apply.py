# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem up` and `down`: whole or not at all, the difference and nothing else, nothing taken from the living."""

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
from eal.lifecycle import cleanup as leftovers
from eal.memory import hugepages, segment_file
from eal.metadata.records import Table
from eal.runtime import prefix_dir as runtime
from ivshmem.cli import cli
from ivshmem.inspect.holders import Holders
from ivshmem.plan import apply as plan_up
from ivshmem.plan import schema as plans
from ivshmem.plan import teardown as plan_down

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
    """`write(old, new, ...)`: the path of PLAN with some text replaced. All is taken down when the test ends."""

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


def good(*words: str) -> str:
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def error(*words: str) -> str:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    return result.stderr


def table(prefix: str) -> Table:
    found = leftovers.last_table(runtime.PrefixDir(runtime.runtime_dir(), prefix))
    assert found is not None
    return found


def files(prefix: str) -> set[str]:
    return {name for name in os.listdir("/dev/shm") if f".{prefix}." in name}


def names(prefix: str) -> set[str]:
    return {entry.name for entry in table(prefix).entries}


def test_up_makes_all_and_leaves_it_in_place(write: Callable[..., str], prefix: str) -> None:
    done = json.loads(good("up", write(), "--json"))
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
    assert good("down", write()).startswith(f"removed file_prefix {prefix!r}: ")
    assert files(prefix) == set()
    assert good("down", write()) == f"file_prefix {prefix!r}: nothing was there\n"


def test_the_same_plan_again_changes_nothing(write: Callable[..., str], prefix: str) -> None:
    first = json.loads(good("up", write(), "--json"))
    before = (table(prefix), files(prefix))
    again = json.loads(good("up", write(), "--json"))
    assert (again["changes"], again["vms"]) == ([], first["vms"])
    assert (table(prefix), files(prefix)) == before
    assert good("up", write()).startswith("no change\n")


def test_the_difference(write: Callable[..., str], prefix: str) -> None:
    good("up", write())
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
    assert {e for e in ring if e.name == "rx"} <= set(table(prefix).entries)  # it lives on as it was


def test_what_lives_keeps_its_shape(write: Callable[..., str], prefix: str) -> None:
    good("up", write())
    before = (table(prefix), files(prefix))
    text = error("up", write("count = 64", "count = 128", "n = 8", "n = 9"))
    for fault in (
        "rings.rx.count: a capacity of 63 there, 127",
        "rings.tx.count: ",
        "pktmbuf_pools.packets.n: 8 there",
    ):
        assert fault in text
    assert (table(prefix), files(prefix)) == before


def test_what_others_made_is_left_alone(write: Callable[..., str], prefix: str) -> None:
    good("up", write())
    with eal.init(["--no-pci"], file_prefix=prefix) as app:
        app.ring_create("theirs", 8)
        app.detach()
    run("up", write("[rings.tx]\ncount = 64\n", "", 'rings = ["tx"], ', ""))
    assert names(prefix) == {"settings", "rx", "packets", "theirs"}


def test_a_fault_and_nothing_is_made(write: Callable[..., str], prefix: str, runtime_dir: Path) -> None:
    assert "rings.rx.count: 63 is not a power of two" in error("up", write("count = 64", "count = 63"))
    assert (files(prefix), list(runtime_dir.iterdir())) == (set(), [])


@pytest.mark.parametrize("there", [False, True])
def test_too_little_memory_leaves_nothing_new(write: Callable[..., str], prefix: str, there: bool) -> None:
    if there:
        good("up", write())
    before = files(prefix)
    more = '[groups.first]\nsize = "4M"\n[groups.big]\n[zones.big]\nlength = "64G"\ngroup = "big"\n'
    big = write("[pktmbuf_pools", f"{more}[pktmbuf_pools")
    assert "pages of 4 KiB required in /dev/shm" in error("up", big)
    assert files(prefix) == before
    assert good("up", write()).startswith("no change\n" if there else "created ")


def test_several_that_are_too_large_together_take_nothing(
    write: Callable[..., str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would fit: none is made, since all of them would have starved others before the last was refused."""
    monkeypatch.setattr(hugepages, "_available_memory", lambda: 24 << 20)
    taken: list[int] = []
    take = os.posix_fallocate

    def count(fd: int, at: int, size: int) -> None:
        taken.append(size)
        take(fd, at, size)

    monkeypatch.setattr(os, "posix_fallocate", count)
    large = "".join(f'[groups.g{i}]\nsize = "16M"\n' for i in range(2))
    message = error("up", write("[pktmbuf_pools", f"{large}[pktmbuf_pools"))
    assert "pages of 4 KiB required in /dev/shm, 6144 available" in message
    assert (files(prefix), sum(taken) < 1 << 20) == (set(), True)


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupt_leaves_nothing_new(
    write: Callable[..., str], prefix: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        good("up", write())
    before = (files(prefix), table(prefix) if there else None)
    monkeypatch.setattr(segment_file, "CHUNK", 1 << 20)
    plan = plans.load(Path(write("[rings.tx]", '[groups.g]\nsize = "8M"\n[rings.tx]')))

    def interrupt(_: int) -> Any:
        return lambda _: signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        plan_up.up(plan, interrupt)
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


def test_what_a_living_process_holds_is_not_taken(
    write: Callable[..., str], prefix: str, peer: Callable[..., Any]
) -> None:
    good("up", write())
    app = peer(APP)
    app.hear()
    before = files(prefix)
    for words in (["down", write()], ["down", "--file-prefix", prefix]):
        assert f"(pid {app.pid})" in error(*words)
    without = write("[rings.tx]\ncount = 64\n", "", 'rings = ["tx"], ', "")
    text = error("up", without)
    assert "ring 'tx' cannot go: its segment is held by" in text
    assert f"(pid {app.pid})" in text
    assert files(prefix) == before
    app.end()
    assert run("up", without).exit_code == 0
    assert good("down", without)


def test_guests_of_a_vm_that_cannot_be_seen(
    write: Callable[..., str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count where processes are hidden from this user; where all can be seen, they went with their VM."""
    good("up", write())
    with eal.init(["--no-pci"], file_prefix=prefix, no_huge=True) as app:
        base = eal.segments()[0].mapping.pointer()
        assert lib.ivs_participant_claim(base, 0x1234_5678 << 32 | 1, 77) >= 0
        app.detach()
    monkeypatch.setattr(plan_down, "find_holders", lambda *_: Holders([], hidden=True))
    assert "it is held by 1 thread of guests, in a VM of another user, as it seems" in error("down", write())
    monkeypatch.setattr(plan_down, "find_holders", lambda *_: Holders([], hidden=False))
    assert good("down", write())
    assert files(prefix) == set()


def test_force(write: Callable[..., str], prefix: str, peer: Callable[..., Any]) -> None:
    good("up", write())
    app = peer(APP)
    app.hear()
    forced = run("down", write(), "--force")
    assert (forced.exit_code, files(prefix)) == (0, set())
    assert f"(pid {app.pid})" in forced.stderr


def test_the_prefix_of_a_running_program(write: Callable[..., str], prefix: str, peer: Callable[..., Any]) -> None:
    app = peer(APP, "own")
    app.hear()
    assert "is that of a running program" in error("up", write())
    assert names(prefix) == {"own"}


def test_down_takes_a_plan_or_a_prefix(runtime_dir: Path) -> None:
    for words in (["down"], ["down", "plan.toml", "--file-prefix", "x"]):
        assert run(*words).exit_code == 2
