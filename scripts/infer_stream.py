#!/usr/bin/env python
"""Writes a model's commentary on a clip; the same as ``svm-tui infer``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
