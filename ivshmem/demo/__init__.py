# SPDX-License-Identifier: BSD-3-Clause
"""Demo: a host and a guest exchange messages."""
