# SPDX-License-Identifier: BSD-3-Clause
"""Commands that read shared files and report their content."""
