# SPDX-License-Identifier: BSD-3-Clause
"""The socket_id that selects no NUMA node. A module of its own, because `import eal` loads nothing else of memory/."""

SOCKET_ID_ANY = -1  # DPDK: SOCKET_ID_ANY
