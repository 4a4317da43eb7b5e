"""The tables of a report: figures, latency, sizes, facts and settings, as texts."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from streaming_vlm_mlx.eval.report import MB, PARTS, QUANTILES
from streaming_vlm_mlx.report.figures import Stretch, column_figures
from streaming_vlm_mlx.sessions.record import SessionRecord

# Bytes from which sizes are given in GB.
_LARGE, GB = 10e9, 1e9

Value = float | int | None
_Show = Callable[[float], str]


@dataclass(frozen=True)
class Figure:
    """A row of the table of figures: its key, its name, how a value is shown, and what it means."""

    key: str
    name: str
    show: _Show
    meaning: str = ""


def _share(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.1 or value == 0 else f"{100 * value:.1f} %"


def _seconds(value: float) -> str:
    return f"{value:+.1f} s".replace("-", "−")


FIGURES = (
    Figure("wer", "Word error rate", _share, "wrong, missed and added words, over the words of the reference"),
    Figure("rouge_l", "ROUGE-L", "{:.2f}".format, "F1 of the longest common subsequence of words; 1 is the reference"),
    Figure("word_delay", "Word delay", _seconds, "how much later matching words come, by the time in the clip"),
    Figure("words_per_second", "Words a second", "{:.1f}".format),
    Figure("silence", "Silent seconds", _share, "seconds in which no word begins"),
    Figure("repetition", "Repetition", _share, "runs of four words that came before"),
    Figure("tokens_per_second", "Tokens a second", "{:.1f}".format, "generated, in a second of decode"),
    Figure("seconds_per_second", "Work a second", "{:.2f} s".format, "median time for a second of video"),
    Figure("on_time", "Seconds on time", _share, "whose work took no longer than they last"),
    Figure("skipped", "Skipped seconds", "{:.0f}".format, "for which the model had no time"),
    Figure("still_share", "Still video left out", _share, "of the video tokens, since nothing moved"),
)
# Figures that are left out where they are 0.
WHERE_ANY = ("skipped", "still_share")
TILES = ("wer", "rouge_l", "word_delay", "silence", "tokens_per_second", "seconds_per_second")
# Figures that are no row of the table, or one of `FIGURES`; the others are a judge's.
_KNOWN = {*(figure.key for figure in FIGURES), "seconds", "tokens", "latency_ms", "memory"}
SIZES = {
    "process": "Process",
    "active": "MLX arrays",
    "peak": "MLX, peak",
    "cache_bytes": "KV cache",
    "cache_tokens": "KV cache, tokens",
}


def without_secrets(word: str) -> str:
    """Return `word`; an address loses its user and its query, which may hold a password."""
    if "://" not in word:
        return word
    try:
        address = urlsplit(word)
    except ValueError:
        return "…"
    return f"{address.scheme}://{address.hostname or ''}{address.path}"


def tiles(found: Mapping[str, Any], reference: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and remark of the most important figures that there are."""
    by_key = {figure.key: figure for figure in FIGURES}
    tiles = []
    for figure in (by_key[key] for key in TILES):
        if found.get(figure.key) is not None:
            beside = reference.get(figure.key)
            remark = f"reference: {figure.show(beside)}" if beside is not None else figure.meaning
            tiles.append((figure.name, figure.show(found[figure.key]), remark))
    return tiles


def figure_rows(
    found: Sequence[Mapping[str, Any]], reference: Mapping[str, Any]
) -> Iterator[tuple[str, list[str], str, str]]:
    """Yield name, a value for each column, the reference's value and the meaning of each figure that there is."""
    judged = [
        Figure(key, key.replace("_", " ").capitalize(), "{:.3g}".format)
        for key, value in found[0].items()
        if key not in _KNOWN and isinstance(value, int | float)
    ]
    for figure in (*FIGURES, *judged):
        values = [each.get(figure.key) for each in found]
        if any(value if figure.key in WHERE_ANY else value is not None for value in values):
            yield (
                figure.name,
                [_shown_value(figure, value) for value in values],
                _shown_value(figure, reference.get(figure.key)),
                figure.meaning,
            )


def _shown_value(figure: Figure, value: Value) -> str:
    return "–" if value is None else figure.show(value)


def case_rows(stretches: Sequence[Stretch]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, time and the values of `TILES` of each stretch."""
    by_key = {figure.key: figure for figure in FIGURES}
    for stretch in stretches:
        found = column_figures([stretch], 0)
        time = f"{clock(stretch.start)}–{clock(stretch.end)}"
        yield stretch.name, time, [_shown_value(by_key[key], found.get(key)) for key in TILES]


CASE_HEADS = tuple(figure.name for key in TILES for figure in FIGURES if figure.key == key)


def latency_rows(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each part of the work and its quantiles in milliseconds, column by column."""
    if not any(each["latency_ms"] for each in found):
        return
    for part, name in PARTS.items():
        values = [each["latency_ms"].get(part, {}).get(quantile) for each in found for quantile in QUANTILES]
        yield name, ["–" if value is None else f"{value:,.0f}" for value in values]


def size_rows(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each size and its largest value in every column."""
    for key, name in SIZES.items():
        values = [each["memory"].get(key) for each in found]
        if any(values):
            show = "{:,}".format if key == "cache_tokens" else _size
            yield name, ["–" if value is None else show(value) for value in values]


def _size(amount: float) -> str:
    return f"{amount / GB:,.1f} GB" if amount >= _LARGE else f"{amount / MB:,.0f} MB"


def facts(session: SessionRecord) -> dict[str, str]:
    """Return what is known of a session, by name."""
    machine = {
        f"machine: {name.removesuffix('_bytes').replace('_', ' ')}": (
            _size(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)
        )
        for name, value in session.machine.items()
        if value is not None
    }
    versions = {f"version: {name}": str(value) for name, value in session.versions.items()}
    facts = {
        "clip": without_secrets(session.clip),
        "checkpoint": session.model,
        "began": session.created,
        "ended early": session.failure,
    }
    return {**{name: value for name, value in facts.items() if value}, **machine, **versions}


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of each of `settings`, those of a part with its name and a point before."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value) or "–"


def fact_rows(columns: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, list[str], bool]]:
    """Yield the name of each fact, its value in every column, and whether these differ."""
    for name in dict.fromkeys(itertools.chain.from_iterable(columns)):
        values = [column.get(name, "–") for column in columns]
        yield name, values, len(set(values)) > 1


def clock(seconds: float) -> str:
    """Return a time as m:ss, or as h:mm:ss from an hour on."""
    whole = math.floor(seconds + 1e-6)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
