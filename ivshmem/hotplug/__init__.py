# SPDX-License-Identifier: BSD-3-Clause
"""Hot plug: shares into and out of a running QEMU over QMP."""
