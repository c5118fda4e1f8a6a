# SPDX-License-Identifier: BSD-3-Clause
"""Commands that create shared objects and pass metadata to VMs."""
