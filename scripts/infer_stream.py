#!/usr/bin/env python
"""Commentary on a clip without a screen; the same as ``svm-tui infer``."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
