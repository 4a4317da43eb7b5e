#!/usr/bin/env python
"""Quantizes a checkpoint, or writes it in Hugging Face's layout; the same as ``svm-tui convert-ckpt``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert-ckpt", *sys.argv[1:]]))
