# SPDX-License-Identifier: BSD-3-Clause
"""Metadata files and the table format that the registry shares with them."""
