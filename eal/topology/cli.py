# SPDX-License-Identifier: BSD-3-Clause
"""The command cpu-layout. It uses the standard library alone, so it starts fast and runs from a checkout."""

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
    "cpus": ("one line per CPU: its numbers in lscpu -e, and its caches", cpu_table),
    "memory": ("memory and free hugepages of each node", memory_table),
    "distances": ("distances between nodes", distance_table),
    "caches": ("caches and the CPUs that share them", cache_table),
    "pci": ("PCI devices with their NUMA node, and the content of ivshmem devices", pci_table),
    "pinned": ("pinned threads of QEMU and eal processes, with their CPUs", pinned_table),
}


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser of cpu-layout."""
    parser = argparse.ArgumentParser(
        prog="cpu-layout",
        description="Show the cores of each socket and NUMA node; plan the placement of VMs and lcores.",
        epilog="docs/cpu-layout.md describes SPEC, the JSON schema, and the differences from lscpu and lstopo.",
    )
    views = parser.add_argument_group("views (default: the layout of cores and sockets)")
    for name, (text, _) in _VIEWS.items():
        views.add_argument(f"--{name}", action="store_true", help=text)
    views.add_argument("-a", "--all", action="store_true", help="the layout and every view")
    out = parser.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="print JSON, with the selected views, instead of text")
    out.add_argument("--svg", metavar="FILE", help="draw the topology (and the plan) as SVG")
    out.add_argument("--png", metavar="FILE", help="draw it as PNG; requires: pip install 'ivshmem[png]'")
    out.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: auto, colours in a terminal only"
    )
    parser.add_argument(
        "--sysfs", metavar="DIR", help="read a captured tree (DIR contains sys/) instead of this machine"
    )
    parser.add_argument(
        "--plan",
        metavar="SPEC",
        help="plan VMs and lcores, such as 'vm=web,vcpus=4,memory=8G,lcores=1; lcores=2'",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `cpu-layout` and return its exit status: 0, 1 if the plan does not fit, 2 for an error.

    `argv` contains the arguments without the program name, None: those of sys.argv.
    """
    args = build_parser().parse_args(argv)
    try:
        status = _show(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (EalError, OSError) as error:
        print(f"cpu-layout: {error}", file=sys.stderr)
        return 2
    return status


def _show(args: argparse.Namespace) -> int:
    topology = Topology(args.sysfs)
    views = [name for name in _VIEWS if args.all or getattr(args, name)]
    if args.plan is not None:
        return _show_plan(topology, args)
    drawn = _draw(topology, args, {})
    if args.json:
        from eal.topology.view.json import VIEWS, as_dict

        _print_json(as_dict(topology, tuple(name for name in VIEWS if name in views)))
    elif views or not drawn:
        _print_views(topology, views, layout_too=args.all or not views, paint=_paint(args))
    return 0


def _print_views(topology: Topology, views: list[str], *, layout_too: bool, paint: Paint) -> None:
    blocks = [layout(topology, paint)] if layout_too else []
    blocks += [_VIEWS[name][1](topology, paint) for name in views]
    print("\n\n".join("\n".join(block) for block in blocks))


def _show_plan(topology: Topology, args: argparse.Namespace) -> int:
    from eal.topology.placement.request import parse_spec
    from eal.topology.placement.solver import solve
    from eal.topology.placement.view_text import plan_as_dict, plan_lines

    plan = solve(topology, parse_spec(args.plan))
    _draw(topology, args, plan.owners)
    if args.json:
        _print_json(plan_as_dict(plan))
    else:
        print("\n".join(plan_lines(plan, _paint(args))))
    return 0 if plan.fits else 1


def _print_json(data: dict[str, Any]) -> None:
    import json  # not at the top: 3 ms of start-up time

    json.dump(data, sys.stdout, indent=1)
    print()


def _draw(topology: Topology, args: argparse.Namespace, owners: dict[int, str]) -> bool:
    """Write the requested SVG and PNG files; return whether there were any."""
    if not (args.svg or args.png):
        return False
    from eal.topology.view.svg import svg, write_png

    picture = svg(topology, owners)
    if args.svg:
        with open(args.svg, "w", encoding="utf-8") as file:
            file.write(picture)
    if args.png:
        write_png(picture, args.png)
    return True


def _paint(args: argparse.Namespace) -> Paint:
    terminal = sys.stdout.isatty()
    columns = os.get_terminal_size(sys.stdout.fileno()).columns if terminal else 0
    coloured = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return Paint(coloured if args.color == "auto" else args.color == "always", columns or None)
