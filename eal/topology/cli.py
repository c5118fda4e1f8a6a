# SPDX-License-Identifier: BSD-3-Clause
"""The command cpu-layout: argparse alone, so that it starts fast and runs from a checkout."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from eal.errors import EalError
from eal.topology.model import Topology
from eal.topology.view.text import (
    Paint,
    cache_table,
    cpu_table,
    distance_table,
    layout,
    memory_table,
    pci_table,
    pinned_table,
)

_VIEWS = {
    "cpus": ("one line a CPU, numbered as lscpu -e does, with its caches", cpu_table),
    "memory": ("memory and free hugepages of each node", memory_table),
    "distances": ("distances between nodes", distance_table),
    "caches": ("caches and the CPUs that share them", cache_table),
    "pci": ("PCI devices with their node; ivshmem devices by their metadata", pci_table),
    "pinned": ("which thread of QEMU or of an app of ours is pinned where", pinned_table),
}


def parser() -> argparse.ArgumentParser:
    """The options of cpu-layout."""
    options = argparse.ArgumentParser(
        prog="cpu-layout",
        description="Shows which cores belong to which socket and NUMA node; plans where VMs and lcores go.",
        epilog="docs/cpu-layout.md explains the plan's SPEC and how the numbers relate to lscpu and lstopo.",
    )
    views = options.add_argument_group("views (without one: the layout of cores and sockets)")
    for name, (text, _) in _VIEWS.items():
        views.add_argument(f"--{name}", action="store_true", help=text)
    views.add_argument("-a", "--all", action="store_true", help="the layout and every view")
    out = options.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="JSON alone; with the views named above it holds those too")
    out.add_argument("--svg", metavar="FILE", help="draw the machine (and the plan) as a picture")
    out.add_argument("--png", metavar="FILE", help="the same as a PNG; needs: pip install 'ivshmem[png]'")
    out.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="auto: in a terminal")
    options.add_argument("--sysfs", metavar="DIR", help="a captured tree (DIR holds sys/) instead of this machine")
    options.add_argument(
        "--plan",
        metavar="SPEC",
        help="place VMs and lcores, e.g. 'vm=web,vcpus=4,memory=8G,lcores=1; lcores=2'",
    )
    return options


def main(argv: list[str] | None = None) -> int:
    """The command `cpu-layout`; returns its exit status. `argv` has no program name; None: sys.argv."""
    chosen = parser().parse_args(argv)
    try:
        status = _show(chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (EalError, OSError) as error:
        print(f"cpu-layout: {error}", file=sys.stderr)
        return 2
    return status


def _show(chosen: argparse.Namespace) -> int:
    topology = Topology(chosen.sysfs)
    views = [name for name in _VIEWS if chosen.all or getattr(chosen, name)]
    if chosen.plan is not None:
        return _show_plan(topology, chosen)
    drawn = _draw(topology, chosen, {})
    if chosen.json:
        from eal.topology.view.json import VIEWS, as_dict

        _print_json(as_dict(topology, tuple(name for name in VIEWS if name in views)))
    elif views or not drawn:
        _print_views(topology, views, layout_too=chosen.all or not views, paint=_paint(chosen))
    return 0


def _print_views(topology: Topology, views: list[str], *, layout_too: bool, paint: Paint) -> None:
    blocks = [layout(topology, paint)] if layout_too else []
    blocks += [_VIEWS[name][1](topology, paint) for name in views]
    print("\n\n".join("\n".join(block) for block in blocks))


def _show_plan(topology: Topology, chosen: argparse.Namespace) -> int:
    from eal.topology.placement.request import parse_spec
    from eal.topology.placement.solver import solve
    from eal.topology.placement.view_text import plan_as_dict, plan_lines

    plan = solve(topology, parse_spec(chosen.plan))
    _draw(topology, chosen, plan.owners)
    if chosen.json:
        _print_json(plan_as_dict(plan))
    else:
        print("\n".join(plan_lines(plan, _paint(chosen))))
    return 0 if plan.fits else 1


def _print_json(data: dict[str, Any]) -> None:
    import json

    json.dump(data, sys.stdout, indent=1)
    print()


def _draw(topology: Topology, chosen: argparse.Namespace, owners: dict[int, str]) -> bool:
    """Write the pictures that were asked for; was there any?"""
    if not (chosen.svg or chosen.png):
        return False
    from eal.topology.view.svg import svg, write_png

    picture = svg(topology, owners)
    if chosen.svg:
        with open(chosen.svg, "w", encoding="utf-8") as file:
            file.write(picture)
    if chosen.png:
        write_png(picture, chosen.png)
    return True


def _paint(chosen: argparse.Namespace) -> Paint:
    terminal = sys.stdout.isatty()
    columns = os.get_terminal_size(sys.stdout.fileno()).columns if terminal else 0
    coloured = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return Paint(coloured if chosen.color == "auto" else chosen.color == "always", columns or None)
