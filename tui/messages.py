"""What the command line says: a line of text with the name of the program, safe for any terminal."""

import sys

from streaming_vlm_mlx.plain_text import visible

PROGRAM = "svm-tui"


def note(text: object) -> None:
    """Print `text` on stderr, after the program's name."""
    warn(f"{PROGRAM}: {text}")


def warn(text: object) -> None:
    """Print `text` on stderr."""
    print(visible(text), file=sys.stderr, flush=True)


def tell(text: object) -> None:
    """Print `text`, a result, on stdout."""
    print(visible(text), flush=True)
