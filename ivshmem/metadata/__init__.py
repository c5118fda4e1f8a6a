# SPDX-License-Identifier: BSD-3-Clause
"""Metadata files: create, fill, check and dump."""
