"""Read commentary: which player, which ending of a point and which score it mentions, and when.

The simulated commentary is checked by this reader, and a model's commentary is measured by it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from streaming_vlm_mlx.eval.text_metrics import Word
from streaming_vlm_mlx.matches.people import KITS
from streaming_vlm_mlx.matches.tennis.rules import COUNT_WORDS, POINT_WORDS

_NAME = "|".join(k.name for k in KITS)
_POINT = "|".join(POINT_WORDS)
_COUNT = "|".join(COUNT_WORDS)

# The order matters: a double fault is not a fault, and a fault into the net is not a point that ended in the net.
ENDINGS = {
    "double_fault": re.compile(r"\bdouble faults?\b"),
    "fault": re.compile(r"\bfaults?\b"),
    "ace": re.compile(r"\baces?\b"),
    "net": re.compile(r"\b(?:in|into|finds|hits|catches) the net\b|\b(?:nets|netted)\b"),
    "out": re.compile(r"\b(?:out|long|wide)\b"),
    "winner": re.compile(r"\bwinner\b"),
}
SCORE = re.compile(
    rf"\b(?:(?:{_POINT}) (?:all|{_POINT})|deuce|advantage (?:{_NAME})"
    rf"|game set and match (?:{_NAME})|game and set (?:{_NAME})|game (?:{_NAME})"
    rf"|(?:{_COUNT}) (?:all|{_COUNT}))\b"
)
PLAYER = re.compile(rf"\b(?:{_NAME})\b")


@dataclass(frozen=True, slots=True)
class Mention:
    """A player, a score or an ending that the commentary mentions.

    Attributes:
        time: start of its first word, seconds.
        kind: ``player``, ``score``, or an ending: ace, winner, net, out, fault, double_fault.
        value: the kit, or the score as the umpire calls it; for an ending, the first player in its sentence, or empty.
    """

    time: float
    kind: str
    value: str


def mentions(words: Sequence[Word]) -> list[Mention]:
    """Return what `words` mention, in order of time."""
    found = [m for part in _sentences(words) for m in _read(part)]
    return sorted(found, key=lambda m: m.time)


def _sentences(words: Sequence[Word]) -> Iterator[list[Word]]:
    part: list[Word] = []
    for word in words:
        part.append(word)
        if word.text[-1:] in ".!?":
            yield part
            part = []
    if part:
        yield part


def _read(words: list[Word]) -> Iterator[Mention]:
    kept = [w for w in words if _plain(w.text)]
    texts = [_plain(w.text) for w in kept]
    text, times = _joined(texts, [w.start for w in kept])
    names = [(times[m.start()], m.group()) for m in PLAYER.finditer(text)]
    yield from (Mention(time, "player", name) for time, name in names)
    for m in SCORE.finditer(text):
        yield Mention(times[m.start()], "score", m.group())
    for kind, pattern in ENDINGS.items():
        found = pattern.search(text)
        if found:
            yield Mention(times[found.start()], kind, names[0][1] if names else "")
            return


def _joined(texts: list[str], starts: list[float]) -> tuple[str, dict[int, float]]:
    """Return the words as one text, and the time of each word by its index in that text."""
    out, times = "", {}
    for text, start in zip(texts, starts, strict=True):
        times[len(out)] = start
        out += text + " "
    return out, times


def _plain(text: str) -> str:
    return text.lower().strip(".,!?;:'\"")
