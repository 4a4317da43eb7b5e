#!/usr/bin/env python
"""Renders simulated tennis matches with commentary; the same as ``svm-tui matches``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["matches", *sys.argv[1:]]))
