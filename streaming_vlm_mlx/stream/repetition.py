"""The repetition guard: keeps a model from saying again what it said in the last seconds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streaming_vlm_mlx.config import SamplingConfig
from streaming_vlm_mlx.stream.sampling import Scores

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class _Said:
    """What was said in a second: its start, the rows of its tokens, and its words."""

    start: float
    rows: tuple[int, ...]
    words: str


class RepetitionGuard:
    """Remembers the commentary of the last `repetition_window` seconds and rules out its repetition.

    Two rules work together. A token that completes an n-gram of that commentary, or of the reply under way, is banned,
    as by Hugging Face's `no_repeat_ngram_size`. A reply may begin like an earlier one, because names and subjects
    return: the token that continues such a copy is allowed, and a reply that is a copy to its end counts as silence.
    """

    def __init__(self, config: SamplingConfig, endings: Sequence[int] = ()) -> None:
        """Begin with nothing said; the rows `endings`, which end a reply, are never banned."""
        self._endings = frozenset(endings)
        self._size, self._window = config.no_repeat_ngram_size, config.repetition_window
        self._said: list[_Said] = []

    def configure(self, config: SamplingConfig) -> None:
        """Change the settings; what was said is kept."""
        self._size, self._window = config.no_repeat_ngram_size, config.repetition_window

    def add(self, start: float, rows: Sequence[int], text: str) -> None:
        """Remember what was said in the second that begins at `start`; silence is not remembered."""
        if text:
            self._said.append(_Said(start, tuple(map(int, rows)), _words(text)))

    def forget_before(self, now: float) -> None:
        """Forget what was said more than the window before `now`."""
        self._said = [said for said in self._said if now - said.start <= self._window]

    def clear(self) -> None:
        """Forget everything."""
        self._said.clear()

    def ban(self, logits: Scores, rows: Sequence[int]) -> Scores:
        """Return `logits` [vocab] with -inf at each row that would complete a repeated n-gram after the reply `rows`.

        Where that leaves no row, `logits` is returned as it is.
        """
        size = self._size
        reply = tuple(rows)
        if not size or len(reply) < size - 1:
            return logits
        tail = reply[-(size - 1) :]
        banned = {
            row
            for text in (*(said.rows for said in self._said), reply)
            for at, row in enumerate(text[size - 1 :])
            if text[at : at + size - 1] == tail
        }
        banned -= self._endings | {said.rows[len(reply)] for said in self._said if _begins(said.rows, reply)}
        if not banned:
            return logits
        out = logits.copy()
        out[sorted(banned)] = -np.inf
        return out if np.isfinite(out).any() else logits

    def may_repeat(self, text: str) -> bool:
        """Return whether `text`, the beginning of a reply, is so far a copy of an earlier one's beginning."""
        return any(said.words.startswith(_words(text)) for said in self._said)

    def repeats(self, text: str) -> bool:
        """Return whether the whole reply `text` has the words of an earlier one, up to case and punctuation."""
        return any(said.words == _words(text) for said in self._said)


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _begins(longer: tuple[int, ...], shorter: tuple[int, ...]) -> bool:
    return len(longer) > len(shorter) and longer[: len(shorter)] == shorter
