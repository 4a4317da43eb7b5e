#!/usr/bin/env python
"""Makes training records from datasets, or from clips with transcripts; the same as ``svm-tui convert``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
