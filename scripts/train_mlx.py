#!/usr/bin/env python
"""Trains a model on records; the same as ``svm-tui train``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
