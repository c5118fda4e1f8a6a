# SPDX-License-Identifier: BSD-3-Clause
"""The command cpu-layout: text, colours, JSON, SVG and PNG, devices, errors, start-up time."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from eal.topology import pci as topology_pci
from eal.topology.cli import main
from eal.topology.model import Topology
from eal.topology.pinning import read_threads
from tests.machines import SHAPES, put

ROOT = Path(__file__).parents[3]

Run = Callable[..., str]


@pytest.fixture
def layout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs cpu-layout on a machine of SHAPES, checks its exit status and returns its output."""

    def run(shape: str, *options: str, status: int = 0) -> str:
        if not (tmp_path / shape).exists():
            SHAPES[shape]().write(tmp_path / shape)
        assert main(["--sysfs", str(tmp_path / shape), *options]) == status
        return capsys.readouterr().out

    return run


# --- text ---------------------------------------------------------------------------------------------------


def test_layout_has_dpdk_format(layout: Run) -> None:
    lines = layout("two-sockets-smt").splitlines()
    assert lines[4:7] == ["cores =  [0, 1, 2, 3]", "sockets =  [0, 1]", "numa =  [0, 1]"]
    assert lines[8:] == [
        "          Socket 0           Socket 1",
        "          --------           --------",
        "Core 0    NUMA 0  [0, 8]     NUMA 1  [4, 12]",
        "Core 1    NUMA 0  [1, 9]     NUMA 1  [5, 13]",
        "Core 2    NUMA 0  [2, 10]    NUMA 1  [6, 14]",
        "Core 3    NUMA 0  [3, 11]    NUMA 1  [7, 15]",
    ]


def test_layout_uses_kernel_ids_if_unique(layout: Run) -> None:
    assert "cores =  [0, 4, 8, 9, 10]" in layout("hybrid")
    assert "sockets =  [0, 1]" in layout("repeated-core-ids")  # package ids are -1 and 5


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ("offline-cpus", "offline CPUs =  [1,4-5]"),
        ("cgroup-v2", "CPUs outside the cpuset =  [0,3]"),
        ("memory-only-nodes", "numa without CPUs =  [7,64]"),
    ],
)
def test_layout_lists_unusable_cpus_and_nodes(layout: Run, shape: str, line: str) -> None:
    assert line in layout(shape).splitlines()
    assert line not in layout("two-sockets-smt")


def test_cpus_view_has_lscpu_numbers(layout: Run) -> None:
    lines = [line.split() for line in layout("offline-cpus", "--cpus").splitlines()]
    assert lines[0] == ["CPU", "NODE", "SOCKET", "CORE", "CACHES", "ONLINE", "ALLOWED"]
    assert lines[2] == ["1", "-", "-", "-", "-", "no", "no"]
    assert lines[8] == ["7", "1", "1", "2", "L3", "1", "yes", "yes"]


def test_memory_view_lists_memory_and_hugepages(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pools = {0: {2 << 20: (8, 3)}, 1: {2 << 20: (0, 0), 1 << 30: (4, 4)}}
    replace(SHAPES["two-sockets-smt"](), hugepages=pools, memory={1: 3 << 29}).write(tmp_path)
    assert main(["--sysfs", str(tmp_path), "--memory"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split("  ")[-2:] == ["2 MiB PAGES", "1 GiB PAGES"]
    assert first.split() == ["0", "0-3,8-11", "1", "GiB", "1", "GiB", "1", "GiB", "3/8", "-"]
    assert second.split() == ["1", "4-7,12-15", "1.5", "GiB", "1.5", "GiB", "1.5", "GiB", "0/0", "4/4"]


def test_distances_and_caches_views_are_combined(layout: Run) -> None:
    lines = [line.split() for line in layout("two-sockets-smt", "--distances", "--caches").splitlines()]
    assert lines[:3] == [["FROM/TO", "0", "1"], ["0", "10", "20"], ["1", "20", "10"]]
    assert lines[5] == ["L3", "8", "MiB", "8", "0-3,8-11"]


def test_all_prints_every_view(layout: Run) -> None:
    text = layout("two-sockets-smt", "--all")
    for heading in ("Socket 0", "CPU ", "NODE  CPUS", "FROM/TO", "CACHE", "ADDRESS", "PID"):
        assert re.search(rf"^\s*{heading}", text, re.MULTILINE), heading


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_printed_and_drawn_completely(layout: Run, shape: str, tmp_path: Path) -> None:
    text = layout(shape)
    cpus = json.loads(layout(shape, "--json", "--all"))["cpus"]
    grid = text[text.index("Socket", text.index("numa")) if "Socket" in text[text.index("numa") :] else 0 :]
    shown = {int(number) for cell in re.findall(r"\[([\d, ]+)\]", grid) for number in cell.split(",")}
    assert {cpu["cpu"] for cpu in cpus if cpu["online"]} <= shown
    layout(shape, "--svg", str(tmp_path / "machine.svg"))
    assert drawn_cpus(tmp_path / "machine.svg") == sorted(cpu["cpu"] for cpu in cpus)


def test_output_is_coloured_in_terminal_only(tmp_path: Path) -> None:
    SHAPES["two-sockets-smt"]().write(tmp_path)
    command = [sys.executable, str(ROOT / "tools/cpu_layout.py"), "--sysfs", str(tmp_path)]
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in piped
    terminal = in_terminal(command, {})
    assert "\x1b[36mNUMA 0" in terminal
    assert "\x1b" not in in_terminal(command, {"NO_COLOR": "1"})
    assert re.sub(r"\x1b\[\d+m", "", terminal).split() == piped.split()


def in_terminal(command: list[str], env: dict[str, str]) -> str:
    """Return the output of a command in a terminal of 200 columns."""
    control, terminal = pty.openpty()
    os.set_blocking(control, True)
    subprocess.run(["stty", "cols", "200", "rows", "50"], stdin=terminal, check=True)
    environ = {**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm", **env}
    done = subprocess.run(command, stdout=terminal, env=environ, check=True)
    os.close(terminal)
    text = b""
    try:
        while data := os.read(control, 65536):
            text += data
    except OSError:  # EIO: the terminal is closed and all output was read
        pass
    os.close(control)
    assert done.returncode == 0
    return text.decode()


# --- JSON ---------------------------------------------------------------------------------------------------


def test_json_has_documented_schema(layout: Run) -> None:
    data = json.loads(layout("offline-cpus", "--json"))
    assert data["cpus"][:3] == [
        {"cpu": 0, "core": 0, "socket": 0, "node": 0, "online": True},
        {"cpu": 1, "core": None, "socket": None, "node": None, "online": False},
        {"cpu": 2, "core": 1, "socket": 0, "node": 0, "online": True},
    ]
    assert [node["node"] for node in data["nodes"]] == [0, 1]
    assert data["distances"] == {"0": {"0": 10, "1": 20}, "1": {"0": 20, "1": 10}}
    assert "caches" not in data


def test_json_contains_selected_views(layout: Run) -> None:
    data = json.loads(layout("two-sockets-smt", "--json", "--caches", "--pci"))
    assert data["caches"][1]["cpus"] == [4, 5, 6, 7, 12, 13, 14, 15]
    assert data["pci"] == []
    assert "pinned" not in data


# --- SVG and PNG --------------------------------------------------------------------------------------------


def drawn_cpus(path: Path) -> list[int]:
    """Return the CPUs of an SVG file, by their tooltips."""
    titles = [title.text or "" for title in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}title")]
    return sorted(int(found[1]) for title in titles if (found := re.match(r"CPU (\d+)(,|$)", title)))


def test_svg_of_plan_shows_vcpus_and_lcores(layout: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.svg"
    layout("two-sockets-smt", "--svg", str(path), "--plan", "vm=web,vcpus=2,memory=512M,lcores=1")
    text = path.read_text()
    assert "web vCPU 0" in text
    assert "web lcore" in text


def test_svg_escapes_path_of_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = SHAPES["one-core"]().write(tmp_path / "<a&b>")
    assert main(["--sysfs", str(root), "--svg", str(tmp_path / "x.svg")]) == 0
    assert drawn_cpus(tmp_path / "x.svg") == [0]
    assert capsys.readouterr().out == ""


def test_png_requires_cairosvg(layout: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cairosvg the file is written, without it the exit status is 2."""
    drawn: list[bytes] = []

    class FakeCairo:
        @staticmethod
        def svg2png(*, bytestring: bytes, write_to: str, scale: float) -> None:
            drawn.append(bytestring)
            Path(write_to).write_bytes(b"\x89PNG")

    monkeypatch.setitem(sys.modules, "cairosvg", FakeCairo)
    layout("two-sockets-smt", "--png", str(tmp_path / "x.png"))
    assert (tmp_path / "x.png").read_bytes() == b"\x89PNG"
    assert ElementTree.fromstring(drawn[0]).tag.endswith("svg")
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    layout("two-sockets-smt", "--png", str(tmp_path / "y.png"), status=2)
    assert not (tmp_path / "y.png").exists()


# --- devices and threads ------------------------------------------------------------------------------------


def write_device(
    root: Path, address: str, vendor: str, device_id: str, class_code: str, node: int, bar: bytes | None
) -> None:
    """Add a PCI function; `bar` is the start of its BAR 2."""
    folder = root / "sys/bus/pci/devices" / address
    for name, text in (("vendor", vendor), ("device", device_id), ("class", class_code), ("numa_node", str(node))):
        put(folder / name, text)
    if bar is not None:
        (folder / "resource2").write_bytes(bar.ljust(8192, b"\0"))


def test_pci_view_shows_content_of_ivshmem_devices(layout: Run, tmp_path: Path) -> None:
    root = SHAPES["two-sockets-smt"]().write(tmp_path / "two-sockets-smt")
    metadata = b"IVSHMMET".ljust(40, b"\0") + b"camera"
    hostile = b"IVSHMMET".ljust(40, b"\0") + b"a\x1b[2Jb"
    segment = b"IVSHMSEG".ljust(72, b"\0") + b"frames"
    write_device(root, "0000:00:02.0", "0x1af4", "0x1110", "0x050000", 1, metadata)
    write_device(root, "0000:00:03.0", "0x1af4", "0x1110", "0x050000", -1, segment)
    write_device(root, "0000:00:04.0", "0x1af4", "0x1110", "0x050000", 0, b"anything")
    write_device(root, "0000:00:05.0", "0x1af4", "0x1110", "0x050000", 0, hostile)
    write_device(root, "0000:00:06.0", "0x8086", "0x100e", "0x020000", 0, metadata)
    (root / "sys/bus/pci/devices/0000:00:06.0/net/eth0").mkdir(parents=True)
    rows = [line.split(maxsplit=5) for line in layout("two-sockets-smt", "--pci").splitlines()[1:]]
    assert [(row[1], row[5]) for row in rows] == [
        ("1", "metadata 'camera'"),
        ("-", "segment of group 'frames'"),
        ("0", "-"),
        ("0", "metadata 'a?[2Jb'"),
        ("0", "eth0"),
    ]


def test_pci_constants_match_layout_header() -> None:
    """cpu-layout runs without the compiled core, so it contains copies of four constants of layout.h."""
    text = (ROOT / "native/include/layout.h").read_text()
    offsets = {f"{s}.{f}": int(n) for s, f, n in re.findall(r"IVS_ASSERT_AT\((\w+), (\w+), (\d+)\)", text)}
    magics = {name: bytes.fromhex(value)[::-1] for name, value in re.findall(r"IVS_(\w+)_MAGIC\s+\w+\(0x(\w+)\)", text)}
    (name_size,) = re.findall(r"#define IVS_NAME_SIZE (\d+)u", text)
    assert magics["METADATA"] == topology_pci.METADATA_MAGIC
    assert magics["SEGMENT"] == topology_pci.SEGMENT_MAGIC
    assert topology_pci.METADATA_NAME.start == offsets["ivs_table_file.name"]
    assert topology_pci.SEGMENT_GROUP.start == offsets["ivs_segment.group"]
    for field in (topology_pci.METADATA_NAME, topology_pci.SEGMENT_GROUP):
        assert field.stop - field.start == int(name_size)


def write_process(root: Path, pid: int, argv: list[str], maps: str, threads: dict[int, tuple[str, str]]) -> None:
    """Add a process to /proc; `threads` maps a thread id to its name and CPU list."""
    put(root / f"proc/{pid}/cmdline", "\0".join(argv))
    put(root / f"proc/{pid}/maps", maps)
    for tid, (name, cpus) in threads.items():
        put(root / f"proc/{pid}/task/{tid}/status", f"Name:\t{name}\nCpus_allowed:\tff\nCpus_allowed_list:\t{cpus}\n")


def test_pinned_view_lists_threads_of_qemu_and_eal_processes(layout: Run, tmp_path: Path) -> None:
    root = SHAPES["sub-numa-clusters"]().write(tmp_path / "sub-numa-clusters")
    vcpus = {100: ("qemu-system-x86", "0-7"), 101: ("CPU 0/KVM", "2"), 102: ("CPU 1/KVM", "3-4")}
    write_process(root, 100, ["/usr/bin/qemu-system-x86_64", "-m", "1G"], "", vcpus)
    core = "7f00-7f01 r-xp 0 0:0 1 /venv/lib/eal/_native.abi3.so\n"
    write_process(root, 200, ["python3", "/srv/app.py"], core, {200: ("python3", "7")})
    write_process(root, 300, ["/usr/bin/other"], "", {300: ("other", "0")})
    rows = [line.split("  ") for line in layout("sub-numa-clusters", "--pinned").splitlines()[1:]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["100", "101", "qemu-system-x86_64", "CPU 0/KVM", "2", "1"],
        ["100", "102", "qemu-system-x86_64", "CPU 1/KVM", "3-4", "1-2"],
        ["200", "200", "app.py", "python3", "7", "3"],
    ]
    assert len(read_threads(Topology(root).tree)) == 4


# --- errors -------------------------------------------------------------------------------------------------


def test_error_is_one_line_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sysfs", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cpu-layout: ")
    assert len(err.splitlines()) == 1
    SHAPES["one-core"]().write(tmp_path)
    assert main(["--sysfs", str(tmp_path), "--svg", str(tmp_path / "no/such/x.svg")]) == 2


def test_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} {ROOT}/tools/cpu_layout.py --json --all | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("{", "", 0)


# --- checkout and start-up time -----------------------------------------------------------------------------


def test_tool_in_checkout_needs_standard_library_only(tmp_path: Path) -> None:
    """python -I -S has no site-packages and ignores the environment; no compiled module of the project is loaded."""
    SHAPES["two-sockets-smt"]().write(tmp_path)
    probe = (
        "import runpy, sys; sys.argv.pop(0)\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('numpy', 'cffi', '_cffi_backend')\n"
        "             or name == 'eal._native'), file=sys.stderr)\n"
    )
    options = [
        "--sysfs",
        str(tmp_path),
        "--all",
        "--plan",
        "vm=a,vcpus=2,memory=512M",
        "--svg",
        str(tmp_path / "x.svg"),
    ]
    command = [sys.executable, "-I", "-S", "-c", probe, str(ROOT / "tools/cpu_layout.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "qemu-system-x86_64" in done.stdout


def test_tool_uses_under_100_ms_of_cpu_time() -> None:
    """Take the CPU time of the fastest of ten runs, because other processes slow down cpu-layout.

    tests/benchmarks/bench_cpu_layout.py measures elapsed time.
    """
    command = [sys.executable, "-I", str(ROOT / "tools/cpu_layout.py")]
    times = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert 0 < min(times) < 0.1


def test_cpu_and_node_sysfs_is_read_by_topology_only() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for folder in ("eal", "ivshmem", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"devices/system/(cpu|node)\b", path.read_text())
    }
    assert readers <= {f"eal/topology/{name}.py" for name in ("model", "sysfs", "tree", "view/text")}
