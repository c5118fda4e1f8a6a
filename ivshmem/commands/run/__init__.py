# SPDX-License-Identifier: BSD-3-Clause
"""Commands that run a guest."""
