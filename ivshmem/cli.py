# SPDX-License-Identifier: BSD-3-Clause
"""The command `ivshmem` and the list of its commands, each in a module of `ivshmem.commands`."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any

import click

from eal.errors import EalError
from ivshmem.commands.create.cloud_hypervisor import cloud_hypervisor
from ivshmem.commands.create.cmdline import cmdline
from ivshmem.commands.create.down import down
from ivshmem.commands.create.libvirt import libvirt
from ivshmem.commands.create.plug import plug
from ivshmem.commands.create.unplug import unplug
from ivshmem.commands.create.up import up
from ivshmem.commands.inspect.dump import dump
from ivshmem.commands.inspect.exposure import exposure
from ivshmem.commands.inspect.inspect import inspect
from ivshmem.commands.inspect.ls import ls
from ivshmem.commands.inspect.placement import placement
from ivshmem.commands.repair.clean import clean
from ivshmem.commands.repair.doctor import doctor
from ivshmem.commands.run.demo import demo
from ivshmem.commands.run.emulate import emulate


class _Group(click.Group):
    """Turns EalError and OSError into one line on stderr and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except EalError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise  # click ends without a message
        except OSError as error:
            if error.filename is None:  # stdout cannot be written: prevent a second error in the flush at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(f"{error.filename or 'cannot write'}: {error.strerror}") from error
        return result


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ivshmem")
@click.option("-v", "--verbose", is_flag=True, help="Print debug messages to stderr.")
def cli(verbose: bool) -> None:
    """Share memory between this host and its virtual machines.

    Exit status: 0 success, 1 error (the message is on stderr), 2 invalid usage.
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s: %(message)s")


_COMMANDS = (
    *(up, down, cmdline, libvirt, cloud_hypervisor, plug, unplug),
    *(emulate, demo),
    *(ls, dump, inspect, exposure, placement),
    *(doctor, clean),
)
for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # a file_prefix, hence a path, may contain any bytes
    cli(prog_name="ivshmem")
