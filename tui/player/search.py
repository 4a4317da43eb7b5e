"""Finds words in the commentary and in the true transcript."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from streaming_vlm_mlx.plain_text import harmless
from tui.player.transcript import Transcript

Place = Literal["commentary", "truth"]


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """Words that were searched for.

    Attributes:
        position: seconds from the clip's beginning, of the first word.
        place: where they are.
    """

    position: float
    place: Place


def find(transcript: Transcript, text: str, position: float, with_truth: bool) -> tuple[Match, ...]:
    """Return where `text` is said, in the clip's order; case and the seconds' borders do not matter.

    The truth is searched where it is shown: up to `position` seconds, if `with_truth`.
    """
    wanted = " ".join(text.casefold().split())
    if not wanted:
        return ()
    said = (
        (float(number), word)
        for number, entry in sorted(transcript.entries.items())
        for word in harmless(entry.text).split()
    )
    heard = sorted(transcript.truth.items()) if with_truth else []
    true = ((start, harmless(word)) for _, words in heard for start, _, word in words if start <= position)
    found = [Match(position, "commentary") for position in _positions(said, wanted)]
    found += [Match(position, "truth") for position in _positions(true, wanted)]
    return tuple(sorted(set(found)))


def nearest(matches: Sequence[Match], position: float) -> Match:
    """Return the last of `matches` up to `position` seconds, else the first one."""
    return max((match for match in matches if match.position <= position), default=matches[0])


def step(matches: Sequence[Match], current: Match, steps: int) -> Match:
    """Return the match `steps` after `current`, or before it for a negative number; the first follows the last."""
    if current in matches:
        return matches[(matches.index(current) + steps) % len(matches)]
    # The commentary of its second was replaced.
    later = sum(match <= current for match in matches)
    return matches[(later + steps - (steps > 0)) % len(matches)]


def _positions(words: Iterable[tuple[float, str]], wanted: str) -> Iterator[float]:
    """Yield the times of the words in which `wanted` begins."""
    text, starts = "", list[tuple[int, float]]()
    for position, word in words:
        starts.append((len(text), position))
        text += word.casefold() + " "
    at, place = text.find(wanted), 0
    while at >= 0:
        while place + 1 < len(starts) and starts[place + 1][0] <= at:
            place += 1
        yield starts[place][1]
        at = text.find(wanted, at + 1)
