"""The one family of errors that a user is meant to read."""

from collections.abc import Callable


class SvmError(Exception):
    """What went wrong and the way out, in one line.

    The command line prints the text on stderr and exits with 2; a traceback appears only with ``--debug``.
    Everything else that is raised is a defect of this program.
    """


# What is said before the rest is only counted.
SHOWN = 100

Report = Callable[[str], None]


def log_limit(report: Report, shown: int = SHOWN) -> Report:
    """Return `report` for the first `shown` different complaints; the same one, epoch for epoch, is made once."""
    told = set[str]()

    def say(text: str) -> None:
        if text in told or len(told) > shown:
            return
        told.add(text)
        report(text if len(told) <= shown else "Further complaints are not shown.")

    return say
