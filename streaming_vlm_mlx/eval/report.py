"""A validation's results, and the JSON that they are written as."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.eval.measures import summarise
from streaming_vlm_mlx.eval.runner import Run

VERSION = 1


@dataclass(frozen=True)
class Row:
    """One case that was measured: with its pictures, and with grey ones."""

    name: str
    number: int
    seen: Run
    blanked: Run


@dataclass
class Report:
    """What a validation has come to so far.

    Attributes:
        rows: what was measured.
        failed: by name, what could not be measured and why.
        complete: nothing is left to measure.
    """

    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    def figures(self) -> dict[str, Any]:
        """Return the figures over all rows, and under ``blanked`` the same without pictures."""
        return {**figures([r.seen for r in self.rows]), "blanked": figures([r.blanked for r in self.rows])}

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """Replace `path` with the figures, what they are `about`, and a row a case, in order of their names.

        Raises:
            SvmError: the folder cannot be written, or the disk is full.
        """
        rows = sorted(self.rows, key=lambda r: (r.name.rpartition(":")[0], r.number))
        values = {
            "version": VERSION,
            **self.figures(),
            **about,
            "complete": self.complete,
            "matches": [_row(row) for row in rows],
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed.items()],
        }
        write_text(path, json.dumps(values, ensure_ascii=True, indent=1) + "\n")


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the figures of `measures.summarise`, and the median of seconds of work for a second of video."""
    costs = [s.timings.total_ms / 1e3 / (s.end - s.start) for run in runs for s in run.seconds if s.end > s.start]
    summary = summarise([run.measured for run in runs])
    return {**summary, "seconds_per_second": statistics.median(costs) if costs else None}


def _row(row: Row) -> dict[str, Any]:
    values = {"name": row.name, "number": row.number, **_told(row.seen)}
    return {**values, "blanked": _told(row.blanked)}


def _told(run: Run) -> dict[str, Any]:
    answered = [(s.start, s.answer) for s in run.seconds if s.answer]
    return {**figures([run]), "said": _said(run), "noted": _noted(run), "answered": answered}


def _said(run: Run) -> list[tuple[float, str]]:
    return [(s.start, s.commentary) for s in run.seconds if s.commentary]


def _noted(run: Run) -> list[tuple[float, str]]:
    return [(s.start, s.notes) for s in run.seconds if s.notes]
