"""The figures of a validation: of one stretch of video, or of many, whose counts are pooled."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from streaming_vlm_mlx.eval.reference import Reference
from streaming_vlm_mlx.eval.text_metrics import Errors, align, common_length, count_errors, plain_words
from streaming_vlm_mlx.matches.tennis.judge import Endings, Play, Share, judge_play
from streaming_vlm_mlx.matches.tennis.lexicon import ENDINGS
from streaming_vlm_mlx.matches.truth import Word

# The figures, in the order in which they are shown.
FIGURES = (
    *("team_accuracy", "event_recall", "event_precision", "event_precision_shuffled", "score_accuracy"),
    *("wer", "rouge_l", "words_per_second", "silence"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What is counted in one stretch of video.

    Attributes:
        play: how the play was told; None where it is not known what happened.
        errors: how the words differ from the true ones.
        common: words of the longest common subsequence.
        words: that were said.
        seconds: that were watched.
        silent: of those, in which no word began.
        notes: of the facts that the model noted for itself, how many were right, see `notes`.
        answers: of a viewer's questions, how many were answered rightly, see `answers`.
    """

    play: Play | None
    errors: Errors
    common: int
    words: int
    seconds: int
    silent: int
    notes: Mapping[str, Share] = field(default_factory=dict)
    answers: Mapping[str, Share] = field(default_factory=dict)


def measure(reference: Reference, words: Sequence[Word], rng: np.random.Generator) -> Measured:
    """Hold `words` against `reference`; `rng` draws the times of the chance control."""
    truth, said = ([part for w in spoken for part in plain_words(w.text)] for spoken in (reference.words, words))
    seconds = max(math.ceil(reference.end - reference.start - 1e-6), 1)
    # A second's first word may start a rounding error before it.
    loud = {math.floor(w.start - reference.start + 1e-6) for w in words if plain_words(w.text)}
    return Measured(
        play=None if reference.events is None else judge_play(reference, words, rng),
        errors=count_errors(truth, said, align(truth, said)),
        common=common_length(truth, said) if truth and said else 0,
        words=len(said),
        seconds=seconds,
        silent=seconds - len(loud & set(range(seconds))),
    )


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the `FIGURES` over all of `measured`, and ``events`` (by kind of ending), ``notes`` and ``answers``.

    Counts are pooled: a stretch with twice as many words weighs twice as much. What nothing was there to be measured
    on is None; what was there and went unsaid counts as missed.

    - ``team_accuracy``: of the moments at which the truth names a player, the share at which the model's nearest name
      within 2 s is the same. No name is a wrong one.
    - ``event_recall``: of the endings of points (ace, winner, net, out, fault, double fault), the share told within
      2 s of the moment when the truth tells of it, each mention counting for one.
    - ``event_precision``: of the endings told, the share that had happened, by the same pairing.
    - ``event_precision_shuffled``: the same after the mentions have moved to moments drawn evenly over the clip, a
      mean over draws: what precision comes to by chance.
    - ``score_accuracy``: of the scores that the truth calls, the share at which the model's nearest call within 3 s is
      the same.
    - ``wer``, ``rouge_l``: as in `measure.scores`, against the words of the truth.
    - ``words_per_second``; ``silence``: the share of seconds without a word.
    - ``notes``: by fact, the share of seconds in which what the model noted for itself was right.
    - ``answers``: by kind of question, how often a viewer asked it, and the share of right answers.
    """
    plays = [m.play for m in measured if m.play]
    kinds = {kind: _add(play.endings[kind] for play in plays) for kind in ENDINGS} if plays else {}
    endings = _add(kinds.values())
    errors = Errors(*_sums(map(astuple, (m.errors for m in measured)), 4))
    words, seconds = sum(m.words for m in measured), sum(m.seconds for m in measured)
    values = (
        _broadcast(p.names for p in plays),
        *_ending_figures(endings).values(),
        _broadcast(p.scores for p in plays),
        errors.rate if measured else None,
        2 * sum(m.common for m in measured) / (errors.words + words) if errors.words + words else None,
        words / seconds if seconds else None,
        sum(m.silent for m in measured) / seconds if seconds else None,
    )
    notes = {fact: share.value for fact, share in _pool(m.notes for m in measured).items()}
    answers = {k: {"asked": s.of, "right": s.value} for k, s in _pool(m.answers for m in measured).items()}
    events = {k: {"asked": e.asked, "said": e.said, **_ending_figures(e)} for k, e in kinds.items()}
    return {**dict(zip(FIGURES, values, strict=True)), "events": events, "notes": notes, "answers": answers}


def _ending_figures(endings: Endings) -> dict[str, float | None]:
    """Return recall, precision and precision by chance; silence where there was something to tell has none of them."""
    said, nothing = endings.said, 0.0 if endings.asked else None
    return {
        "event_recall": endings.heard / endings.asked if endings.asked else None,
        "event_precision": endings.right / said if said else nothing,
        "event_precision_shuffled": endings.by_chance / said if said else nothing,
    }


def _add(parts: Iterable[Endings]) -> Endings:
    return Endings(*_sums(map(astuple, parts), 5))


def _pool(parts: Iterable[Mapping[str, Share]]) -> dict[str, Share]:
    """Return the sum of the shares of each name, in the order in which the names first come."""
    pooled: dict[str, Share] = {}
    for name, share in (item for part in parts for item in part.items()):
        before = pooled.get(name, Share(0, 0))
        pooled[name] = Share(before.hits + share.hits, before.of + share.of)
    return pooled


def _broadcast(parts: Iterable[Share]) -> float | None:
    return Share(*_sums(map(astuple, parts), 2)).value


def _sums(rows: Iterable[Sequence[Any]], width: int) -> list[Any]:
    return [sum(column) for column in zip(*rows, strict=True)] or [0] * width
