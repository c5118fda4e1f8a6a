# SPDX-License-Identifier: BSD-3-Clause
"""The runtime directory of a file_prefix and its lock file."""
