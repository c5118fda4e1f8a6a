# SPDX-License-Identifier: BSD-3-Clause
"""Doctor: checks of a machine and its ivshmem devices."""
