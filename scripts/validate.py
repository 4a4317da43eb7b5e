#!/usr/bin/env python
"""How good a model's commentary is; the same as ``svm-tui validate``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
