# SPDX-License-Identifier: BSD-3-Clause
"""Segments, memzones and the registry of a file_prefix (DPDK: lib/eal/common/eal_common_mem*)."""
