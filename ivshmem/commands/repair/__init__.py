# SPDX-License-Identifier: BSD-3-Clause
"""Commands that find faults and clean up."""
