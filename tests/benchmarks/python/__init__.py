# SPDX-License-Identifier: BSD-3-Clause
"""Benchmarks in Python: throughput between processes, method overhead, numba loops, latency."""
