# SPDX-License-Identifier: BSD-3-Clause
"""The demo: a host and a guest exchange messages."""
