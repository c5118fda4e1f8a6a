# SPDX-License-Identifier: BSD-3-Clause
"""Objects by name: the table of the handles that an Eal has handed out."""
