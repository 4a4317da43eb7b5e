"""Make a checkpoint smaller, or lay it out as Hugging Face does: ``svm-tui convert-ckpt`` under its own name."""

import sys

from tui.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert-ckpt", *sys.argv[1:]]))
