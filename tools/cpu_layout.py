#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""cpu-layout from a checkout: nothing installed, nothing built, the standard library alone."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from eal.topology.cli import main

if __name__ == "__main__":
    sys.exit(main())
