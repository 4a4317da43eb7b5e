#!/usr/bin/env python
"""Measures what a second of the stream costs; the same as ``svm-tui bench``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
