# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of host processes in prefixes of their own."""

from tests.prefix_hosts import host, live_host

__all__ = ["host", "live_host"]
