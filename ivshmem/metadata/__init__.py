# SPDX-License-Identifier: BSD-3-Clause
"""Metadata files of the host: create, find, fill, dump; the exposure of VMs to other zones."""
