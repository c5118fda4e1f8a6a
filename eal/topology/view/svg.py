# SPDX-License-Identifier: BSD-3-Clause
"""A topology as SVG: a card per NUMA node with its sockets, shared L3 caches, cores and hyperthreads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from eal.errors import Invalid, NotFound
from eal.text.sizes import rounded_size_text
from eal.topology.cpulist import format_list
from eal.topology.facts import Cpu, Node
from eal.topology.model import Topology
from eal.topology.pci import class_name
from eal.topology.view.drawing import Box, flow, hex_colour, node_colour

_CELL, _GAP, _PAD = 34, 6, 14
_STYLE = (
    "text{font-family:Inter,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2937}"
    ".title{font-size:22px;font-weight:600}.sub{font-size:13px;fill:#6b7280}"
    ".card{fill:#fff;stroke:#d1d5db}.head{font-size:16px;font-weight:600}"
    ".note{font-size:11px;fill:#6b7280}.cpu{font-size:12px;font-weight:600;text-anchor:middle}"
    ".tag{font-size:10px;fill:#4b5563}.cell{font-size:12px;text-anchor:middle}"
)


def svg(topology: Topology, owners: Mapping[int, str] | None = None) -> str:
    """Return the SVG text. `owners` maps a CPU to its user in a plan, such as "web vCPU 0", drawn on the CPU."""
    owners = owners or {}
    cards = [_node_card(topology, node, owners) for node in topology.nodes]
    unassigned = [cpu for cpu in topology.cpus if not cpu.online or cpu.node is None]
    if unassigned:
        cards.append(_unassigned_card(unassigned, owners))
    body = flow(cards, _columns(cards), 20)
    below = flow([box for box in (_distance_box(topology), _pci_box(topology), _legend(owners)) if box], 1600, 40)
    width = max(body.width, below.width, 620) + 60
    height = 96 + body.height + (24 + below.height if below.height else 0) + 30
    page = Box(width, height)
    page.rect(0, 0, width, height, 0, 'fill="#f3f4f6"')
    page.text(30, 44, _title(topology), "title")
    page.text(30, 68, _subtitle(topology), "sub")
    page.put(body, 30, 96)
    page.put(below, 30, 96 + body.height + 24)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}"><title>{escape(_title(topology))}</title>'
        f"<style>{_STYLE}</style>{''.join(page.parts)}</svg>\n"
    )


def write_png(picture: str, path: str) -> None:
    """Write an SVG as a PNG file, at twice its size for sharp text.

    Raise NotFound if cairosvg or libcairo is not installed, Invalid if the file cannot be written.
    """
    try:
        import cairosvg  # type: ignore[import-not-found, import-untyped, unused-ignore]  # optional dependency
    except (ImportError, OSError):  # OSError: cairosvg is installed, libcairo is not
        raise NotFound(
            "--png requires cairosvg and libcairo2: run pip install 'ivshmem[png]' and install libcairo2, or use --svg"
        ) from None
    try:
        cairosvg.svg2png(bytestring=picture.encode(), write_to=path, scale=2)
    except OSError as error:
        raise Invalid(f"cannot write PNG file {path!r}: {error.strerror or error}") from None


def _columns(cards: list[Box]) -> float:
    """Return the width of the rows: for a picture of about 1.7:1, and at least the width of the widest card."""
    area = sum((card.width + 20) * (card.height + 20) for card in cards)
    first_two = sum(card.width + 20 for card in cards[:2])
    screen = min(2400.0, max(first_two, math.sqrt(area * 1.7) + 40))
    return max([screen, *(card.width for card in cards)])


def _title(topology: Topology) -> str:
    online = sum(cpu.online for cpu in topology.cpus)
    counts = [
        (len(topology.sockets), "socket"),
        (len(topology.nodes), "NUMA node"),
        (len(topology.cores), "core"),
    ]
    words = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in [(online, "CPU"), *counts]]
    return ", ".join(words)


def _subtitle(topology: Topology) -> str:
    memory = rounded_size_text(sum(node.memory for node in topology.nodes))
    source = "this machine" if topology.tree.live else topology.tree.root
    return f"{memory} of memory; read from {source}"


def _node_card(topology: Topology, node: Node, owners: Mapping[int, str]) -> Box:
    """Return the card of one NUMA node: memory at the top, sockets below."""
    cpus = [cpu for cpu in topology.cpus if cpu.online and cpu.node == node.node]
    sockets = sorted({cpu.socket for cpu in cpus}, key=lambda number: -1 if number is None else number)
    boxes = [_socket_box(topology, s, [c for c in cpus if c.socket == s], owners) for s in sockets]
    inner = flow(boxes, 640, _PAD)
    width = max(inner.width, 250) + 2 * _PAD
    pools = [pool for pool in node.hugepages if pool.total]
    top = 62 + 16 * len(pools)
    card = Box(width, top + inner.height + _PAD + (8 if boxes else 0))
    card.rect(
        0, 0, width, card.height, 14, f'class="card" style="stroke:{node_colour(node.node, 70)};stroke-width:1.5"'
    )
    card.text(_PAD, 26, f"Node {node.node}", "head")
    card.text(_PAD + 90, 26, f"CPUs {format_list(node.cpus)}" if node.cpus else "memory only", "note")
    _memory_bar(card, node, width)
    for index, pool in enumerate(pools):
        text = f"{rounded_size_text(pool.size)} pages: {pool.free} of {pool.total} free"
        card.text(_PAD, 68 + 16 * index, text, "note")
    card.put(inner, _PAD, top + 4)
    return card


def _memory_bar(card: Box, node: Node, width: float) -> None:
    """Add a bar that shows the used part of the node's memory."""
    full = width - 2 * _PAD
    used = 0.0 if not node.memory else full * (node.memory - node.available) / node.memory
    card.rect(_PAD, 34, full, 6, 3, f'fill="{node_colour(node.node, 92)}"')
    card.rect(_PAD, 34, used, 6, 3, f'fill="{node_colour(node.node, 55)}"')
    text = (
        f"{rounded_size_text(node.available)} available of {rounded_size_text(node.memory)}"
        if node.memory
        else "no memory"
    )
    card.text(_PAD, 53, text, "note")


def _socket_box(topology: Topology, socket: int | None, cpus: list[Cpu], owners: Mapping[int, str]) -> Box:
    """Return the cores of one socket on one node, framed by the last-level cache that they share."""
    caches: dict[tuple[int, ...], list[Cpu]] = {}
    for cpu in cpus:
        shared = [c for c in topology.caches if c.level >= 3 and cpu.cpu in c.cpus]
        caches.setdefault(shared[-1].cpus if shared else (), []).append(cpu)
    sizes = {c.cpus: f"{c.name} {rounded_size_text(c.size)}" for c in topology.caches if c.level >= 3}
    boxes = [_cache_box(sizes.get(sharers, ""), members, owners) for sharers, members in caches.items()]
    inner = flow(boxes, 640, _GAP)
    box = Box(max(inner.width, 90), inner.height + 18)
    box.text(0, 11, "socket unknown" if socket is None else f"Socket {socket}", "tag")
    box.put(inner, 0, 18)
    return box


def _cache_box(label: str, cpus: list[Cpu], owners: Mapping[int, str]) -> Box:
    cores: dict[tuple[bool, int], list[Cpu]] = {}
    for cpu in cpus:
        cores.setdefault((cpu.core is None, cpu.cpu if cpu.core is None else cpu.core), []).append(cpu)
    per_row = 4 if len(cores) <= 8 else 6 if len(cores) <= 24 else 8
    threads = max(map(len, cores.values()))
    core_width = min(threads, 4) * (_CELL + 2) + 6
    inner = flow([_core_box(members, owners) for members in cores.values()], per_row * (core_width + _GAP), _GAP)
    margin = 7 if label else 0
    box = Box(inner.width + 2 * margin, inner.height + margin + (20 if label else 0))
    if label:
        box.rect(0, 0, box.width, box.height, 8, 'fill="none" stroke="#cbd5e1" stroke-dasharray="3 3"')
        box.text(margin, 13, label, "tag")
    box.put(inner, margin, 18 if label else 0)
    return box


def _core_box(cpus: list[Cpu], owners: Mapping[int, str]) -> Box:
    """Return one core: a cell for each hyperthread, four in a row."""
    columns = min(len(cpus), 4)
    rows = -(-len(cpus) // 4)
    box = Box(columns * (_CELL + 2) + 6, rows * (_CELL + 2) + 6)
    box.rect(0, 0, box.width, box.height, 7, f'fill="{node_colour(cpus[0].node, 88)}"')
    for index, cpu in enumerate(cpus):
        x, y = 4 + index % 4 * (_CELL + 2), 4 + index // 4 * (_CELL + 2)
        _cpu_cell(box, x, y, cpu, owners.get(cpu.cpu))
    return box


def _cpu_cell(box: Box, x: float, y: float, cpu: Cpu, owner: str | None) -> None:
    fill = node_colour(cpu.node, 72)
    if not cpu.online or not cpu.allowed:
        fill = "#e5e7eb"
    elif owner:
        fill = "#fbbf24" if owner.endswith("lcore") else "#34d399"
    state = "" if cpu.online else ", offline"
    state += "" if cpu.allowed or not cpu.online else ", outside the cpuset"
    state += f", {owner}" if owner else ""
    box.parts.append(f"<g><title>CPU {cpu.cpu}{escape(state)}</title>")
    box.rect(x, y, _CELL, _CELL, 5, f'fill="{fill}"')
    box.text(x + _CELL / 2, y + (_CELL / 2 + 4 if not owner else 15), str(cpu.cpu), "cpu")
    if owner:
        short = owner.partition(" ")[0]
        style = f"font-size:{min(9.0, 1.6 * _CELL / max(len(short), 1)):.1f}px"
        position = f'x="{x + _CELL / 2:g}" y="{y + 28:g}"'
        box.parts.append(f'<text {position} class="cell" style="{style}">{escape(short)}</text>')
    box.parts.append("</g>")


def _unassigned_card(cpus: list[Cpu], owners: Mapping[int, str]) -> Box:
    """Return the card of the CPUs that are offline or whose node is unknown."""
    inner = flow([_core_box([cpu], owners) for cpu in cpus], 10 * (_CELL + 8 + _GAP), _GAP)
    card = Box(max(inner.width, 220) + 2 * _PAD, inner.height + 44 + _PAD)
    card.rect(0, 0, card.width, card.height, 14, 'class="card" stroke-dasharray="5 4"')
    card.text(_PAD, 26, "Offline, or node unknown", "head")
    card.put(inner, _PAD, 42)
    return card


def _distance_box(topology: Topology) -> Box | None:
    """Return the distance matrix, darker for larger distances; None for a single node."""
    numbers = [node.node for node in topology.nodes]
    if len(numbers) < 2:
        return None
    size = 30
    box = Box((len(numbers) + 1) * size, 26 + (len(numbers) + 1) * size)
    box.text(0, 14, "Distances", "head")
    farthest = max(max(row.values()) for row in topology.distances.values())
    for i, a in enumerate(numbers):
        box.text(i * size + size * 1.5, 26 + size - 10, str(a), "cell")
        box.text(size / 2, 26 + (i + 1) * size + 19, str(a), "cell")
        for j, b in enumerate(numbers):
            distance = topology.distances[a][b]
            lightness = 97 - int(40 * distance / max(farthest, 1))
            x, y = (j + 1) * size, 26 + (i + 1) * size
            box.rect(x + 1, y + 1, size - 2, size - 2, 4, f'fill="{hex_colour(205, lightness, 45)}"')
            box.text(x + size / 2, y + 19, str(distance), "cell")
    return box


def _pci_box(topology: Topology) -> Box | None:
    """Return the list of ivshmem devices and of devices with network or block interfaces; None if empty."""
    shown = [device for device in topology.pci if device.metadata or device.interfaces]
    if not shown:
        return None
    box = Box(420, 30 + 20 * len(shown))
    box.text(0, 14, "Devices", "head")
    for index, device in enumerate(shown):
        y = 38 + 20 * index
        box.rect(0, y - 10, 12, 12, 3, f'fill="{node_colour(device.node, 60)}"')
        node = "node unknown" if device.node is None else f"node {device.node}"
        name = device.metadata or ", ".join(device.interfaces)
        box.text(20, y, f"{device.address}  {class_name(device)}  {name}  ({node})", "note")
    return box


def _legend(owners: Mapping[int, str]) -> Box | None:
    """Return the legend of a plan's colours; None without a plan."""
    if not owners:
        return None
    box = Box(220, 70)
    box.text(0, 14, "Plan", "head")
    for index, (fill, text) in enumerate((("#34d399", "vCPU of a VM"), ("#fbbf24", "polling lcore"))):
        box.rect(0, 26 + 20 * index, 14, 14, 4, f'fill="{fill}"')
        box.text(22, 37 + 20 * index, text, "note")
    return box
