"""Errors that a user reads, and a limit on how many of a kind are logged."""

from collections.abc import Callable

# Characters of an error: paths and a sentence are at its head, the way out is at its end.
_LONGEST, _HEAD, _TAIL = 2000, 1400, 400


class SvmError(Exception):
    """A problem that the user can solve, with the way out, in one line.

    The command line prints the text on stderr and exits with 2; ``--debug`` adds the traceback. Every other exception
    is a bug in this program.
    """

    def __init__(self, text: str) -> None:
        """Take the `text`; one that is too long for a line loses its middle, as a file may put any value into it."""
        super().__init__(text if len(text) <= _LONGEST else f"{text[:_HEAD]} … {text[-_TAIL:]}")


# Messages that `log_limit` passes on by default.
SHOWN = 100

Report = Callable[[str], None]


def log_limit(report: Report, shown: int = SHOWN) -> Report:
    """Return a function that passes the first `shown` different messages on to `report`, each of them once."""
    seen = set[str]()

    def report_once(text: str) -> None:
        if text in seen or len(seen) > shown:
            return
        seen.add(text)
        report(text if len(seen) <= shown else "Further messages are not shown.")

    return report_once
