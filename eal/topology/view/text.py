# SPDX-License-Identifier: BSD-3-Clause
"""A machine as text: the layout DPDK people know, and a table for each further kind of fact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from eal.text.sizes import rounded_size_text
from eal.topology.cpulist import format_list
from eal.topology.model import Topology
from eal.topology.pci import class_name

_NODE_COLOURS = (36, 33, 32, 35, 34, 31)  # cyan, yellow, green, magenta, blue, red
_GAP = "  "


class Paint:
    """Terminal colours, or none: where output is piped the text stays plain."""

    def __init__(self, enabled: bool, columns: int | None = None) -> None:
        """`columns`: the terminal's width; None where nothing limits a line."""
        self.enabled = enabled
        self.columns = columns

    def node(self, text: str, node: int | None) -> str:
        """Text in the colour of a NUMA node; grey where the node is unknown."""
        return self._wrap(text, 90 if node is None else _NODE_COLOURS[node % len(_NODE_COLOURS)])

    def bold(self, text: str) -> str:
        """A heading."""
        return self._wrap(text, 1)

    def dim(self, text: str) -> str:
        """What matters less."""
        return self._wrap(text, 2)

    def bad(self, text: str) -> str:
        """What is wrong."""
        return self._wrap(text, 31)

    def _wrap(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.enabled else text


def number_text(number: int | None) -> str:
    """A number, or "-" where there is none, as lscpu writes it."""
    return "-" if number is None else str(number)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    paint: Paint,
    node_of: Callable[[Sequence[str]], int | None] | None = None,
) -> list[str]:
    """Aligned columns, each line in the colour of the node that `node_of` reads from its row."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    body = [paint.node(line(row), node_of(row)) if node_of else line(row) for row in rows]
    return [paint.bold(line(header)), *body]


def layout(topology: Topology, paint: Paint) -> list[str]:
    """Cores by sockets with their CPUs, as DPDK's cpu_layout prints them; the kernel's ids, where unique."""
    online = [cpu for cpu in topology.cpus if cpu.online]
    socket_names = _socket_names(topology)
    core_names = _core_names(topology)
    cells: dict[tuple[str, str], list[int]] = {}
    node_of_cell: dict[tuple[str, str], set[int]] = {}
    for cpu in online:
        key = ("?" if cpu.core is None else core_names[cpu.core], _named(socket_names, cpu.socket))
        cells.setdefault(key, []).append(cpu.cpu)
        node_of_cell.setdefault(key, set()).update(() if cpu.node is None else (cpu.node,))
    cores = sorted({core for core, _ in cells}, key=_natural)
    sockets = sorted({socket for _, socket in cells}, key=_natural)
    source = f"{topology.tree.sys}/devices/system/cpu"
    title = f"Cores, sockets and NUMA nodes (read from {source})"
    lines = ["=" * len(title), paint.bold(title), "=" * len(title), ""]
    lines.append(f"cores =  [{', '.join(cores)}]")
    lines.append(f"sockets =  [{', '.join(sockets)}]")
    lines.append(f"numa =  {[node.node for node in topology.nodes]}")
    lines += _exceptions(topology)
    return [*lines, "", *_grid(cores, sockets, cells, node_of_cell, paint)]


def _socket_names(topology: Topology) -> dict[int, str]:
    """Socket -> package id where those tell sockets apart, else the socket's own number."""
    packages = [socket.package_id for socket in topology.sockets]
    usable = all(package is not None and package >= 0 for package in packages) and len(set(packages)) == len(packages)
    return {socket.socket: str(socket.package_id if usable else socket.socket) for socket in topology.sockets}


def _core_names(topology: Topology) -> dict[int, str]:
    """Core -> core id where those tell the cores of a socket apart, else the core's own number."""
    keys = [(core.socket, core.core_id) for core in topology.cores]
    usable = all(core_id is not None and core_id >= 0 for _, core_id in keys) and len(set(keys)) == len(keys)
    return {core.core: str(core.core_id if usable else core.core) for core in topology.cores}


def _named(names: dict[int, str], number: int | None) -> str:
    return "?" if number is None else names[number]


def _natural(name: str) -> tuple[bool, int]:
    return (name == "?", int(name) if name.isdigit() else 0)


def _exceptions(topology: Topology) -> list[str]:
    """Lines that only some machines have: CPUs that cannot be used, nodes that have none."""
    offline = [cpu.cpu for cpu in topology.cpus if not cpu.online]
    forbidden = [cpu.cpu for cpu in topology.cpus if cpu.online and not cpu.allowed]
    empty = [node.node for node in topology.nodes if not node.cpus]
    homeless = [cpu.cpu for cpu in topology.cpus if cpu.online and cpu.node is None]
    found = [
        ("offline CPUs", offline),
        ("CPUs outside the cpuset", forbidden),
        ("numa without CPUs", empty),
        ("CPUs whose node is unknown", homeless),
    ]
    return [f"{name} =  [{format_list(numbers)}]" for name, numbers in found if numbers]


def _grid(
    cores: list[str],
    sockets: list[str],
    cells: dict[tuple[str, str], list[int]],
    nodes: dict[tuple[str, str], set[int]],
    paint: Paint,
) -> list[str]:
    """One row a core, for each socket the node and the CPUs; in blocks where a line would be too long."""
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
    """Sockets that fit side by side, in order; all of them where no terminal limits the line."""
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
    """One line a CPU, with the numbers of `lscpu -e` and the caches it uses."""
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
    return lambda row: int(row[index]) if row[index].isdigit() else None


def memory_table(topology: Topology, paint: Paint) -> list[str]:
    """Memory and hugepages of each node; hugepages as free/total of each size."""
    sizes = sorted({pool.size for node in topology.nodes for pool in node.hugepages})
    header = ["NODE", "CPUS", "MEMORY", "FREE", "AVAILABLE", *(f"{rounded_size_text(size)} PAGES" for size in sizes)]
    rows = []
    for node in topology.nodes:
        pools = {pool.size: f"{pool.free}/{pool.total}" for pool in node.hugepages}
        memory = [rounded_size_text(amount) for amount in (node.memory, node.free, node.available)]
        rows.append([str(node.node), format_list(node.cpus) or "none", *memory, *(pools.get(s, "-") for s in sizes)])
    return table(header, rows, paint, _column(0))


def distance_table(topology: Topology, paint: Paint) -> list[str]:
    """Distances from the node of each row to the node of each column."""
    numbers = [node.node for node in topology.nodes]
    rows = [[str(a), *(str(topology.distances[a][b]) for b in numbers)] for a in numbers]
    return table(["FROM/TO", *map(str, numbers)], rows, paint, _column(0))


def cache_table(topology: Topology, paint: Paint) -> list[str]:
    """Each cache with the CPUs that share it."""
    rows = [(c.name, rounded_size_text(c.size), str(len(c.cpus)), format_list(c.cpus)) for c in topology.caches]
    return table(("CACHE", "SIZE", "SHARED BY", "CPUS"), rows, paint)


def pci_table(topology: Topology, paint: Paint) -> list[str]:
    """PCI functions and their nodes. An ivshmem device is named by the metadata or group in its memory."""
    rows = []
    for device in topology.pci:
        what = device.metadata or ", ".join(device.interfaces) or "-"
        ids = f"{device.vendor:04x}:{device.device:04x}"
        rows.append((device.address, number_text(device.node), ids, class_name(device), device.driver or "-", what))
    return table(("ADDRESS", "NODE", "ID", "KIND", "DRIVER", "NAME"), rows, paint, _column(1))


def pinned_table(topology: Topology, paint: Paint) -> list[str]:
    """Pinned threads of QEMU and of apps of ours."""
    nodes = {cpu.cpu: cpu.node for cpu in topology.cpus}
    rows = []
    for thread in topology.pinned:
        on = {nodes[cpu] for cpu in thread.cpus if nodes.get(cpu) is not None}
        where = format_list(node for node in on if node is not None) or "-"
        rows.append((str(thread.pid), str(thread.tid), thread.program, thread.thread, format_list(thread.cpus), where))
    return table(("PID", "TID", "PROGRAM", "THREAD", "CPUS", "NODE"), rows, paint, _column(5))
