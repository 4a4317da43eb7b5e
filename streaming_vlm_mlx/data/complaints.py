"""Complaints about data, of which there may be millions."""

from collections.abc import Callable

# What is said before the rest is only counted.
SHOWN = 100

Report = Callable[[str], None]


def limited(report: Report, shown: int = SHOWN) -> Report:
    """Return `report` for the first `shown` different complaints; the same one, epoch for epoch, is made once."""
    told = set[str]()

    def say(text: str) -> None:
        if text in told or len(told) > shown:
            return
        told.add(text)
        report(text if len(told) <= shown else "Further complaints are not shown.")

    return say
