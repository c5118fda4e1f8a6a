# SPDX-License-Identifier: BSD-3-Clause
"""The commands of `ivshmem`, one a module: the module's name is the command's, and so is the function in it."""
