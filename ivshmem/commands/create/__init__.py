# SPDX-License-Identifier: BSD-3-Clause
"""Commands that create shares and give them to VMs."""
