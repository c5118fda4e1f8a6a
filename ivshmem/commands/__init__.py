# SPDX-License-Identifier: BSD-3-Clause
"""Commands of `ivshmem`. Each module contains one command, a function with the same name; ivshmem.cli lists them."""
