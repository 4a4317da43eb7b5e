"""The results of a validation: pooled figures, tables, and the JSON file."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.eval.runner import CaseRun, FigureTable, JudgeCounts
from streaming_vlm_mlx.eval.text_metrics import NO_TEXT
from streaming_vlm_mlx.stream.events import still_share

VERSION = 2
BOTH = ("as seen", "grey pictures")


@dataclass(frozen=True)
class CaseResult:
    """The two runs of one case: on its own pictures, and on grey ones."""

    name: str
    number: int
    seen: CaseRun
    grey: CaseRun


@dataclass
class Report:
    """The results of a validation so far.

    Attributes:
        results: the cases that were measured.
        failed: the reason by name for each case that could not be measured.
        complete: no case is left to measure.
    """

    results: list[CaseResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    def figures(self) -> dict[str, Any]:
        """Return the figures over all cases, and under ``grey`` the same figures on grey pictures."""
        return {**figures([r.seen for r in self.results]), "grey": figures([r.grey for r in self.results])}

    def tables(self, title: str) -> list[FigureTable]:
        """Return the table of all single figures under `title`, then the tables of the judge."""
        seen, grey = self.figures(), figures([r.grey for r in self.results])
        rows = tuple(
            (name.replace("_", " "), value, grey[name])
            for name, value in seen.items()
            if not isinstance(value, Mapping)
        )
        first = FigureTable(title, ("figure", *BOTH), rows)
        judged, judged_grey = pool_judged([r.seen for r in self.results]), pool_judged([r.grey for r in self.results])
        return [first, *(judged.tables(judged_grey) if judged and judged_grey else ())]

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """Replace `path` with the figures, the facts `about` the run, and each case, sorted by name.

        Raises:
            SvmError: the folder cannot be written, or the disk is full.
        """
        results = sorted(self.results, key=lambda r: (r.name.rpartition(":")[0], r.number))
        values = {
            "version": VERSION,
            **self.figures(),
            **about,
            "complete": self.complete,
            "cases": [{"name": r.name, "number": r.number, **_run(r.seen), "grey": _run(r.grey)} for r in results],
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed.items()],
        }
        write_text(path, json.dumps(values, ensure_ascii=True, indent=1) + "\n")


def figures(runs: Sequence[CaseRun]) -> dict[str, Any]:
    """Return the figures of `runs`.

    Counts are pooled: a stretch with twice as many words has twice the weight.

    - ``wer``, ``rouge_l``, ``words_per_second``, ``silence``: see `text_metrics.TextCounts`.
    - The figures of the judge, where the cases have one.
    - ``still_share``: the share of video tokens that were left out, because their patches had not changed.
    - ``seconds_per_second``: the median of the seconds of work for a second of video.

    A figure is None where there is nothing to measure.
    """
    costs = [s.timings.total_ms / 1e3 / (s.end - s.start) for run in runs for s in run.seconds if s.end > s.start]
    seconds = [second for run in runs for second in run.seconds]
    judged = pool_judged(runs)
    return {
        **sum((run.text for run in runs), NO_TEXT).figures(),
        **(judged.figures() if judged else {}),
        "still_share": still_share(seconds),
        "seconds_per_second": statistics.median(costs) if costs else None,
    }


def pool_judged(runs: Sequence[CaseRun]) -> JudgeCounts | None:
    """Return the sum of what the judges counted in `runs`; None if no run has a judge."""
    pooled: JudgeCounts | None = None
    for run in runs:
        if run.judged is not None:
            pooled = run.judged if pooled is None else pooled + run.judged
    return pooled


def _run(run: CaseRun) -> dict[str, Any]:
    return {
        **figures([run]),
        "said": [(s.start, s.commentary) for s in run.seconds if s.commentary],
        "noted": [(s.start, s.notes) for s in run.seconds if s.notes],
        "answered": [(s.start, s.answer) for s in run.seconds if s.answer],
    }
