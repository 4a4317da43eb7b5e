"""Make records of annotation files, or of clips with a transcript: ``svm-tui convert`` under its own name."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
