# SPDX-License-Identifier: BSD-3-Clause
"""Text forms of names, dtypes and sizes."""
