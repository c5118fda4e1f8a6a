# SPDX-License-Identifier: BSD-3-Clause
"""Plans: a TOML file that `ivshmem up` applies and `ivshmem down` removes."""
