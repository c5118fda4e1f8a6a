# SPDX-License-Identifier: BSD-3-Clause
"""Inspection of files: prefixes, objects and the processes that use them."""
