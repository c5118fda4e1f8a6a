# SPDX-License-Identifier: BSD-3-Clause
"""A topology as text: the core layout of DPDK's cpu_layout.py, and tables of CPUs, memory, caches and devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from eal.text.sizes import rounded_size_text
from eal.topology.cpulist import format_list
from eal.topology.model import Topology
from eal.topology.pci import class_name

_NODE_COLOURS = (36, 33, 32, 35, 34, 31)  # cyan, yellow, green, magenta, blue, red
_GAP = "  "


class Paint:
    """Terminal colours; plain text if disabled."""

    def __init__(self, enabled: bool, columns: int | None = None) -> None:
        """`columns` is the terminal's width, None for lines of any length."""
        self.enabled = enabled
        self.columns = columns

    def node(self, text: str, node: int | None) -> str:
        """Return the text in the colour of a NUMA node, grey for an unknown node."""
        return self._wrap(text, 90 if node is None else _NODE_COLOURS[node % len(_NODE_COLOURS)])

    def bold(self, text: str) -> str:
        """Return the text in bold, for headings."""
        return self._wrap(text, 1)

    def dim(self, text: str) -> str:
        """Return the text dimmed, for comments."""
        return self._wrap(text, 2)

    def bad(self, text: str) -> str:
        """Return the text in red, for problems."""
        return self._wrap(text, 31)

    def _wrap(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.enabled else text


def number_text(number: int | None) -> str:
    """Return the number, or "-" for None, as lscpu does."""
    return "-" if number is None else str(number)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    paint: Paint,
    node_of: Callable[[Sequence[str]], int | None] | None = None,
) -> list[str]:
    """Return aligned columns under a header. `node_of` returns the NUMA node of a row, which colours its line."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    body = [paint.node(line(row), node_of(row)) if node_of else line(row) for row in rows]
    return [paint.bold(line(header)), *body]


def layout(topology: Topology, paint: Paint) -> list[str]:
    """Return the CPUs of each core and socket in the format of DPDK's cpu_layout.py.

    Cores and sockets have the kernel's ids if these are unique, otherwise the numbers of `lscpu -e`.
    """
    online = [cpu for cpu in topology.cpus if cpu.online]
    socket_names = _socket_names(topology)
    core_names = _core_names(topology)
    cells: dict[tuple[str, str], list[int]] = {}
    node_of_cell: dict[tuple[str, str], set[int]] = {}
    for cpu in online:
        key = ("?" if cpu.core is None else core_names[cpu.core], _name_or_unknown(socket_names, cpu.socket))
        cells.setdefault(key, []).append(cpu.cpu)
        node_of_cell.setdefault(key, set()).update(() if cpu.node is None else (cpu.node,))
    cores = sorted({core for core, _ in cells}, key=_numeric_key)
    sockets = sorted({socket for _, socket in cells}, key=_numeric_key)
    source = f"{topology.tree.sys}/devices/system/cpu"
    title = f"Cores, sockets and NUMA nodes (read from {source})"
    lines = ["=" * len(title), paint.bold(title), "=" * len(title), ""]
    lines.append(f"cores =  [{', '.join(cores)}]")
    lines.append(f"sockets =  [{', '.join(sockets)}]")
    lines.append(f"numa =  {[node.node for node in topology.nodes]}")
    lines += _special_cases(topology)
    return [*lines, "", *_grid(cores, sockets, cells, node_of_cell, paint)]


def _socket_names(topology: Topology) -> dict[int, str]:
    """Return socket -> its package id if package ids are unique, otherwise its number."""
    packages = [socket.package_id for socket in topology.sockets]
    usable = all(package is not None and package >= 0 for package in packages) and len(set(packages)) == len(packages)
    return {socket.socket: str(socket.package_id if usable else socket.socket) for socket in topology.sockets}


def _core_names(topology: Topology) -> dict[int, str]:
    """Return core -> its core id if core ids are unique in each socket, otherwise its number."""
    keys = [(core.socket, core.core_id) for core in topology.cores]
    usable = all(core_id is not None and core_id >= 0 for _, core_id in keys) and len(set(keys)) == len(keys)
    return {core.core: str(core.core_id if usable else core.core) for core in topology.cores}


def _name_or_unknown(names: dict[int, str], number: int | None) -> str:
    return "?" if number is None else names[number]


def _numeric_key(name: str) -> tuple[bool, int]:
    return (name == "?", int(name) if name.isdigit() else 0)


def _special_cases(topology: Topology) -> list[str]:
    """Return a line for each of these that the machine has: unusable CPUs, nodes without CPUs, CPUs without node."""
    offline = [cpu.cpu for cpu in topology.cpus if not cpu.online]
    forbidden = [cpu.cpu for cpu in topology.cpus if cpu.online and not cpu.allowed]
    empty = [node.node for node in topology.nodes if not node.cpus]
    nodeless = [cpu.cpu for cpu in topology.cpus if cpu.online and cpu.node is None]
    cases = [
        ("offline CPUs", offline),
        ("CPUs outside the cpuset", forbidden),
        ("numa without CPUs", empty),
        ("CPUs whose node is unknown", nodeless),
    ]
    return [f"{name} =  [{format_list(numbers)}]" for name, numbers in cases if numbers]


def _grid(
    cores: list[str],
    sockets: list[str],
    cells: dict[tuple[str, str], list[int]],
    nodes: dict[tuple[str, str], set[int]],
    paint: Paint,
) -> list[str]:
    """Return a row per core with the node and CPUs of each socket, in several blocks if the terminal is too narrow."""
    numa = {key: f"NUMA {format_list(found) or '?'}" for key, found in nodes.items()}
    longest = max(map(len, numa.values()))
    texts = {key: f"{numa[key]:<{longest}}  {cpus}" for key, cpus in cells.items()}
    first = max(len(f"Core {core}") for core in cores)
    width = {s: max([len(f"Socket {s}"), *(len(text) for key, text in texts.items() if key[1] == s)]) for s in sockets}
    blocks = []
    for group in _groups(sockets, width, first, paint.columns):
        lines = [
            " " * first + "".join("    " + paint.bold(f"Socket {s}".ljust(width[s])) for s in group),
            " " * first + "".join("    " + ("-" * len(f"Socket {s}")).ljust(width[s]) for s in group),
        ]
        for core in cores:
            keys = [(core, socket) for socket in group]
            if any(key in cells for key in keys):
                row = [
                    paint.node(texts[key].ljust(width[key[1]]), min(nodes[key], default=None))
                    if key in cells
                    else " " * width[key[1]]
                    for key in keys
                ]
                lines.append("    ".join([f"Core {core}".ljust(first), *row]))
        blocks.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(blocks).split("\n")


def _groups(sockets: list[str], width: dict[str, int], first: int, columns: int | None) -> list[list[str]]:
    """Return groups of sockets that fit side by side in `columns` columns, None for unlimited columns."""
    groups: list[list[str]] = [[]]
    used = first
    for socket in sockets:
        if columns is not None and groups[-1] and used + 4 + width[socket] > columns:
            groups.append([])
            used = first
        groups[-1].append(socket)
        used += 4 + width[socket]
    return groups


def cpu_table(topology: Topology, paint: Paint) -> list[str]:
    """Return a line per CPU with the numbers of `lscpu -e` and the CPU's caches."""
    caches: dict[int, list[str]] = {}
    numbers: dict[str, int] = {}
    for cache in topology.caches:
        number = numbers[cache.name] = numbers.get(cache.name, -1) + 1
        for cpu in cache.cpus:
            caches.setdefault(cpu, []).append(f"{cache.name} {number}")
    rows = [
        (
            str(cpu.cpu),
            number_text(cpu.node),
            number_text(cpu.socket),
            number_text(cpu.core),
            ", ".join(caches.get(cpu.cpu, [])) or "-",
            "yes" if cpu.online else "no",
            "yes" if cpu.allowed else "no",
        )
        for cpu in topology.cpus
    ]
    return table(("CPU", "NODE", "SOCKET", "CORE", "CACHES", "ONLINE", "ALLOWED"), rows, paint, _column(1))


def _column(index: int) -> Callable[[Sequence[str]], int | None]:
    """Return a `node_of` for table() that reads the node from this column."""
    return lambda row: int(row[index]) if row[index].isdigit() else None


def memory_table(topology: Topology, paint: Paint) -> list[str]:
    """Return the memory and the free/total hugepages of each node."""
    sizes = sorted({pool.size for node in topology.nodes for pool in node.hugepages})
    header = ["NODE", "CPUS", "MEMORY", "FREE", "AVAILABLE", *(f"{rounded_size_text(size)} PAGES" for size in sizes)]
    rows = []
    for node in topology.nodes:
        pools = {pool.size: f"{pool.free}/{pool.total}" for pool in node.hugepages}
        memory = [rounded_size_text(amount) for amount in (node.memory, node.free, node.available)]
        rows.append([str(node.node), format_list(node.cpus) or "none", *memory, *(pools.get(s, "-") for s in sizes)])
    return table(header, rows, paint, _column(0))


def distance_table(topology: Topology, paint: Paint) -> list[str]:
    """Return the distance from the node of each row to the node of each column."""
    numbers = [node.node for node in topology.nodes]
    rows = [[str(a), *(str(topology.distances[a][b]) for b in numbers)] for a in numbers]
    return table(["FROM/TO", *map(str, numbers)], rows, paint, _column(0))


def cache_table(topology: Topology, paint: Paint) -> list[str]:
    """Return a line per cache with the CPUs that share it."""
    rows = [(c.name, rounded_size_text(c.size), str(len(c.cpus)), format_list(c.cpus)) for c in topology.caches]
    return table(("CACHE", "SIZE", "SHARED BY", "CPUS"), rows, paint)


def pci_table(topology: Topology, paint: Paint) -> list[str]:
    """Return a line per PCI function; the name of an ivshmem device is its metadata file or segment group."""
    rows = []
    for device in topology.pci:
        name = device.metadata or ", ".join(device.interfaces) or "-"
        ids = f"{device.vendor:04x}:{device.device:04x}"
        rows.append((device.address, number_text(device.node), ids, class_name(device), device.driver or "-", name))
    return table(("ADDRESS", "NODE", "ID", "KIND", "DRIVER", "NAME"), rows, paint, _column(1))


def pinned_table(topology: Topology, paint: Paint) -> list[str]:
    """Return a line per pinned thread of QEMU and eal processes."""
    nodes = {cpu.cpu: cpu.node for cpu in topology.cpus}
    rows = []
    for thread in topology.pinned:
        known = {node for cpu in thread.cpus if (node := nodes.get(cpu)) is not None}
        node_text = format_list(known) or "-"
        rows.append(
            (str(thread.pid), str(thread.tid), thread.program, thread.thread, format_list(thread.cpus), node_text)
        )
    return table(("PID", "TID", "PROGRAM", "THREAD", "CPUS", "NODE"), rows, paint, _column(5))
