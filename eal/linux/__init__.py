# SPDX-License-Identifier: BSD-3-Clause
"""Linux interfaces: mappings, memory types and latency, kernel lockdown, processes, atomic file replacement."""
