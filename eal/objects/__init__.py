# SPDX-License-Identifier: BSD-3-Clause
"""Objects of an Eal by name: the table of handles that this process has issued, and the methods that use it."""
