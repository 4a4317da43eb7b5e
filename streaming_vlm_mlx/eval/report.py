"""The results of a validation: pooled figures, tables, and the JSON file."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.eval.runner import CaseRun, FigureTable, JudgeCounts
from streaming_vlm_mlx.eval.text_metrics import NO_TEXT
from streaming_vlm_mlx.stream.events import GenerationResult, still_share

VERSION = 2
BOTH = ("as seen", "grey pictures")
# The parts of a second's work, as `Timings` names them, and what a reader calls them.
PARTS = {
    "vision": "vision tower",
    "prefill": "prefill",
    "decode": "decode",
    "first_text": "to the first text",
    "total": "all work",
}
QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}
MB = 1e6


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
        cost = cost_tables(seen["latency_ms"], seen["memory"])
        judged, judged_grey = pool_judged([r.seen for r in self.results]), pool_judged([r.grey for r in self.results])
        return [first, *cost, *(judged.tables(judged_grey) if judged and judged_grey else ())]

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
    - ``latency_ms``, ``memory``: see `latency` and `memory`.

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
        "latency_ms": latency(seconds),
        "memory": memory(seconds),
    }


def latency(seconds: Iterable[GenerationResult]) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a second's work: for each of `PARTS` its median, 95th percentile and largest value.

    Seconds that nobody timed are left out; without any the result is empty.
    """
    timings = [second.timings for second in seconds if second.timings.total_ms]
    if not timings:
        return {}
    return {
        part: {
            name: round(float(np.quantile([getattr(each, f"{part}_ms") for each in timings], share)), 3)
            for name, share in QUANTILES.items()
        }
        for part in PARTS
    }


def memory(seconds: Iterable[GenerationResult]) -> dict[str, int]:
    """Return the largest values in bytes: of the process, of MLX's arrays, MLX's peak, of the KV cache; and its tokens.

    Where nobody measured the memory, the result holds the cache's alone.
    """
    seconds = list(seconds)
    measured = [second.memory for second in seconds if second.memory]
    found = {name: max((getattr(m, name) for m in measured), default=0) for name in ("process", "active", "peak")}
    cache = {name: max((getattr(s, name) for s in seconds), default=0) for name in ("cache_bytes", "cache_tokens")}
    return {name: value for name, value in {**found, **cache}.items() if value}


def cost_tables(found: Mapping[str, Mapping[str, float]], most: Mapping[str, int]) -> list[FigureTable]:
    """Return the tables of what `latency` and `memory` returned; none for what nobody measured."""
    rows = tuple((PARTS[part], *(f"{value:.0f}" for value in values.values())) for part, values in found.items())
    tables = [FigureTable("Milliseconds a second of video", ("part", *QUANTILES), rows)] if rows else []
    sizes = {"process": "process", "active": "MLX", "peak": "MLX, peak", "cache_bytes": "KV cache"}
    held = tuple((label, f"{most[name] / MB:,.1f}") for name, label in sizes.items() if name in most)
    return [*tables, *([FigureTable("Memory, at most", ("", "MB"), held)] if held else [])]


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
