# SPDX-License-Identifier: BSD-3-Clause
"""Commands that diagnose this machine and remove stale files."""
