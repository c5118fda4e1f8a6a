# SPDX-License-Identifier: BSD-3-Clause
"""Linux: mappings, memory types, kernel lockdown, processes."""
