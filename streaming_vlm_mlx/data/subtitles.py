"""WebVTT and SRT as they are found: one tolerant reader for both, which keeps a caption's inline word times.

The libraries for these formats refuse a file for one bad cue and drop inline times, so the few rules that a word
stream needs are read here: a line with ``-->``, then text up to an empty line.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

_TIME = r"((?:\d+:)?\d{1,2}:\d{1,2}[.,]\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_INLINE = re.compile(rf"<{_TIME}>")
_TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")


@dataclass(frozen=True, slots=True)
class Cue:
    """A stretch of speech.

    Attributes:
        line: where its times stand in the file, counted from 1.
        start: seconds.
        end: seconds; before `start` in a broken file.
        pieces: start, end and plain text of each part that has times of its own; mostly one.
    """

    line: int
    start: float
    end: float
    pieces: tuple[tuple[float, float, str], ...]


def read_cues(text: str) -> Iterator[Cue | int]:
    """Yield the cues of `text` in its order; for a line with ``-->`` whose times can not be read, its number."""
    lines = re.split(r"\r\n|\r|\n", text)
    rolling = _INLINE.search(text) is not None
    shown = ""
    for number, line in enumerate(lines, 1):
        if "-->" not in line:
            continue
        timing = _TIMING.match(line)
        if timing is None:
            yield number
            continue
        spoken = [line for line in _text_lines(lines, number) if _plain(line).strip()]
        if rolling and spoken and _plain(spoken[0]).strip() == shown:
            # Captions that roll up show each line twice, and have word times in it the first time.
            spoken = spoken[1:]
        if spoken:
            shown = _plain(spoken[-1]).strip()
        start, end = (_seconds(time) for time in timing.groups())
        yield Cue(number, start, end, tuple(_pieces(" ".join(spoken), start, end)))


def _text_lines(lines: list[str], at: int) -> list[str]:
    """Return the lines from `at` to the next empty one, or to the next cue where the empty one was forgotten."""
    spoken: list[str] = []
    for line in lines[at:]:
        if not line:
            break
        if "-->" in line:
            if spoken and spoken[-1].strip().isdigit():
                spoken.pop()
            break
        spoken.append(line)
    return spoken


def _pieces(text: str, start: float, end: float) -> Iterator[tuple[float, float, str]]:
    first, *rest = _INLINE.split(text)
    times = [start, *(_seconds(time) for time in rest[::2]), end]
    for begin, until, piece in zip(times, times[1:], [first, *rest[1::2]], strict=False):
        plain = _plain(piece)
        if plain.strip():
            yield begin, until, plain


def _plain(text: str) -> str:
    return html.unescape(_TAG.sub("", text))


def _seconds(time: str) -> float:
    *hours, minutes, secs = time.replace(",", ".").split(":")
    whole, fraction = secs.split(".")
    total = (int(hours[0]) if hours else 0) * 3600 + int(minutes) * 60 + int(whole)
    return total + int(fraction.ljust(3, "0")) / 1000
