# SPDX-License-Identifier: BSD-3-Clause
"""Views of a topology: text, JSON and SVG."""
