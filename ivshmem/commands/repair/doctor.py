# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem doctor`: find problems that prevent or slow down sharing on this machine, and their remedies."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ivshmem.cli_options import console, json_option, print_json

if TYPE_CHECKING:
    from ivshmem.doctor import Report

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Diagnose this machine, a host or a guest.

    Checks the ivshmem devices and their content, lockdown, drivers, memory type and speed of BARs, hugepages, NUMA
    placement, free space in /dev/shm, the runtime directory, QEMU and KVM. Prints a remedy for each problem. The exit
    status is 1 if sharing cannot work, 0 if it works, even slowly.

    Example: ivshmem doctor
    """
    from ivshmem.doctor import examine

    report = examine()
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    sys.exit(0 if report.ok else 1)


def _print(report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "subject", "value")
    for check in report.checks:
        mark = Text(check.verdict.upper(), _STYLES[check.verdict])
        table.add_row(mark, check.check, Text(check.subject), Text(check.value))
    out = console()
    out.print(table)
    for check in report.checks:
        if check.remedy:
            text = f"{check.verdict.upper()} {check.check}, {check.subject}: {check.remedy}"
            out.print(Text(text, _STYLES[check.verdict]))
    state = "sharing works" if report.ok else "sharing does not work"
    out.print(f"this is a {report.role}: {state}")
