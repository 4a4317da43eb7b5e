"""Runs ``svm-tui`` as ``python -m tui``."""

from tui.cli import program

program()
