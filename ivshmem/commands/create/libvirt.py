# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem libvirt`: print the XML that passes metadata to a libvirt domain."""

from __future__ import annotations

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, metadata_arguments, prefix_option, print_json


@click.command()
@metadata_arguments("NAME...")
@prefix_option
@json_option
def libvirt(names: tuple[str, ...], file_prefix: str | None, as_json: bool) -> None:
    """Print the XML that passes the metadata NAME... to a libvirt domain.

    Its two elements, <devices> and <qemu:commandline>, are children of <domain>. Merge the content of <devices> into
    that of the domain. With --json the XML is one string.

    Example: ivshmem libvirt vm0 > vm0-shares.xml
    """
    from ivshmem.metadata.lookup import find_metadata
    from ivshmem.vmm.device import merge
    from ivshmem.vmm.libvirt import domain_xml
    from ivshmem.vmm.qemu import place_of

    found = [find_metadata(prefix_dir.runtime_dir(), name, file_prefix) for name in names]
    devices = merge(device for one in found for device in one.devices())
    xml = domain_xml(devices, place_of(*(one.file.info.uuid for one in found)))
    if as_json:
        print_json(xml)
    else:
        click.echo(xml, nl=False)
