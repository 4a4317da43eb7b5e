#!/usr/bin/env python
"""Measures the quality of a model's commentary; the same as ``svm-tui validate``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
