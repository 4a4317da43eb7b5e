"""The figures of a comparison: rows and ratios of its seconds, and what a prompt cost."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streaming_vlm_mlx.eval.bench import SecondCost
from streaming_vlm_mlx.eval.peers.worker import Who

# Seconds of video that are reported on the way to the last.
LENGTHS = (10, 60, 300)
OURS: Who = "svm-tui"


@dataclass(frozen=True)
class Row:
    """What the first `seconds` seconds of video cost a program.

    Attributes:
        who: the program, and what it keeps.
        seconds: of video.
        median_s: seconds of work a second of video, median.
        p95_s: the same, 95 % of all seconds.
        last_tenth_s: the same, median of the last tenth.
        first_token_s: seconds of work until a second's first token, median.
        decode_tokens_per_s: tokens a second after the first, median; None where a second has one token.
        peak_rss_mb: the most memory of the process until then, 1e6 bytes.
    """

    who: Who
    seconds: int
    median_s: float
    p95_s: float
    last_tenth_s: float
    first_token_s: float
    decode_tokens_per_s: float | None
    peak_rss_mb: float


@dataclass(frozen=True)
class Ratio:
    """A program's seconds of work divided by this program's, second by second.

    Attributes:
        who: the program; a ratio above 1 means that it takes longer.
        seconds: of video.
        median: of all seconds.
        p10: a tenth of all seconds is below.
        p90: a tenth of all seconds is above.
        peak_rss: its peak memory divided by this program's.
    """

    who: Who
    seconds: int
    median: float
    p10: float
    p90: float
    peak_rss: float


def lengths(asked: int, measured: int) -> list[int]:
    """Return the lengths to report of a run over `asked` seconds, of which `measured` are complete."""
    return sorted({n for n in (*LENGTHS, asked, measured) if 0 < n <= measured})


def make_row(who: Who, costs: Sequence[SecondCost]) -> Row:
    """Return the figures of a program's `costs`, one a second, at least one."""
    seconds = [cost.seconds for cost in costs]
    speeds = [(c.tokens - 1) / (c.last_token_s - c.first_token_s) for c in costs if c.tokens > 1]
    return Row(
        who,
        len(costs),
        median_s=statistics.median(seconds),
        p95_s=float(np.quantile(seconds, 0.95)),
        last_tenth_s=statistics.median(seconds[-max(len(seconds) // 10, 1) :]),
        first_token_s=statistics.median(cost.first_token_s for cost in costs),
        decode_tokens_per_s=statistics.median(speeds) if speeds else None,
        peak_rss_mb=costs[-1].peak_rss / 1e6,
    )


def make_ratio(who: Who, costs: Sequence[SecondCost], own: Sequence[SecondCost]) -> Ratio:
    """Return the ratios of a program's `costs` to `own`, which has as many seconds."""
    ratios = [cost.seconds / mine.seconds for cost, mine in zip(costs, own, strict=True)]
    low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
    return Ratio(who, len(costs), float(middle), float(low), float(high), costs[-1].peak_rss / own[-1].peak_rss)


def figures(costs: Mapping[Who, Sequence[SecondCost]], asked: int, measured: int) -> tuple[list[Row], list[Ratio]]:
    """Return the rows and the ratios of all lengths, shortest first.

    Args:
        costs: what each second cost, by row.
        asked: seconds of the whole run.
        measured: seconds that every row has.
    """
    rows, ratios = [], []
    for length in lengths(asked, measured):
        for who, seconds in costs.items():
            if len(seconds) >= length:
                rows.append(make_row(who, seconds[:length]))
                if who != OURS:
                    ratios.append(make_ratio(who, seconds[:length], costs[OURS][:length]))
    return rows, ratios


@dataclass(frozen=True)
class Prefill:
    """What a prompt of text cost a program.

    Attributes:
        who: the program.
        median_s: seconds of work until the logits of the last token, median.
        ratio: `median_s` divided by this program's.
    """

    who: Who
    median_s: float
    ratio: float


def make_prefills(prefills: Mapping[Who, Sequence[float]]) -> list[Prefill]:
    """Return the figures of `prefills`, seconds by program, this program's among them."""
    medians = {who: statistics.median(seconds) for who, seconds in prefills.items()}
    return [Prefill(who, seconds, seconds / medians[OURS]) for who, seconds in medians.items()]
