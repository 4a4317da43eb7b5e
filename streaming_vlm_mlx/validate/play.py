"""Whether commentary tells what happens: players by name, endings of points, scores.

What is said is read by `matches.tennis.lexicon`, truth and model alike. Moments are paired by time alone
(`alignment.align_times`) before it is asked whether they say the same, so saying everything at once earns nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streaming_vlm_mlx.matches.tennis.lexicon import ENDINGS, Mention, mentions
from streaming_vlm_mlx.matches.truth import Word
from streaming_vlm_mlx.validate.alignment import align_times
from streaming_vlm_mlx.validate.reference import Reference

# Seconds by which a mention may miss its moment.
WINDOW, SCORE_WINDOW = 2.0, 3.0
# Where the truth does not name an ending, it could have been named this long after it.
USUAL_LAG = 1.0
# The longest that the truth takes to name an ending; what ends later than `TAIL` before the end it may leave unsaid.
LONGEST_LAG, TAIL = 2.2, 4.0
# A silence as long as this ends a sentence that has no full stop.
PAUSE = 0.5
DRAWS = 40


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        """0 to 1; None of nothing."""
        return self.hits / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class Endings:
    """How one kind of ending was told.

    Attributes:
        asked: how many there were to tell.
        heard: how many of those were told.
        said: how often the model told of one.
        right: how often there was one.
        by_chance: how often there would have been one, had it said the same at any other time; a mean.
    """

    asked: int
    heard: int
    said: int
    right: int
    by_chance: float


@dataclass(frozen=True, slots=True)
class Play:
    """How a stretch of play was told.

    Attributes:
        names: of the moments at which the truth names a player, those at which the model's nearest name is the same.
        scores: of the scores that the truth calls, those at which the model's nearest call is the same.
        endings: by kind.
    """

    names: Share
    scores: Share
    endings: Mapping[str, Endings]


@dataclass(frozen=True, slots=True)
class Moment:
    """When an ending is to be told; `asked` is False for one that may as well go unsaid."""

    time: float
    kind: str
    asked: bool


def judge_play(reference: Reference, words: Sequence[Word], rng: np.random.Generator) -> Play:
    """Hold `words` against a reference that has events; `rng` draws the times of the chance control."""
    truth, said = heard(reference.words), heard(words)
    moments = ending_moments(reference, truth)
    return Play(
        names=_same(truth, said, "player", WINDOW),
        scores=_same(truth, said, "score", SCORE_WINDOW),
        endings={kind: _judge_ending(kind, moments, said, reference, rng) for kind in ENDINGS},
    )


def heard(words: Sequence[Word]) -> list[Mention]:
    """Return what `words` say, in order of time; a silence ends a sentence."""
    return [mention for stretch in _stretches(words) for mention in mentions(stretch)]


def ending_moments(reference: Reference, truth: Sequence[Mention]) -> list[Moment]:
    """Return when each ending of a point is to be told, in order of time; `truth` is what the true words say.

    That is when the truth tells of it, else a second after it happened. One that the truth leaves unsaid at either
    edge of the stretch is not asked for, but it is not wrong to tell of it.
    """
    moments: list[Moment] = []
    for kind in ENDINGS:
        times = [m.time for m in truth if m.kind == kind]
        for event in (e for e in reference.events or () if e.kind == kind):
            at = next((t for t in times if 0 <= t - event.time <= LONGEST_LAG), None)
            if at is None:
                within = reference.start <= event.time < reference.end - TAIL
                moments.append(Moment(event.time + USUAL_LAG, kind, within))
            else:
                times.remove(at)
                moments.append(Moment(at, kind, True))
    return sorted(moments, key=lambda m: m.time)


def _stretches(words: Sequence[Word]) -> Iterator[list[Word]]:
    stretch: list[Word] = []
    for word in words:
        if stretch and word.start - stretch[-1].end >= PAUSE:
            yield stretch
            stretch = []
        stretch.append(word)
    if stretch:
        yield stretch


def _same(truth: Sequence[Mention], said: Sequence[Mention], kind: str, window: float) -> Share:
    """Return at how many of the truth's mentions of `kind` the model's nearest says the same."""
    asked, told = ([m for m in part if m.kind == kind] for part in (truth, said))
    pairs = align_times([m.time for m in asked], [m.time for m in told], window)
    return Share(sum(asked[a].value == told[s].value for a, s in pairs), len(asked))


def _judge_ending(
    kind: str, moments: Sequence[Moment], said: Sequence[Mention], reference: Reference, rng: np.random.Generator
) -> Endings:
    asked = [m.time for m in moments if m.kind == kind and m.asked]
    unasked = [m.time for m in moments if m.kind == kind and not m.asked]
    told = [m.time for m in said if m.kind == kind]
    times = np.sort(rng.uniform(reference.start, reference.end, (DRAWS, len(told))), axis=1).tolist()
    return Endings(
        asked=len(asked),
        heard=len(align_times(asked, told, WINDOW)),
        said=len(told),
        right=_right(asked, unasked, told),
        by_chance=sum(_right(asked, unasked, drawn) for drawn in times) / DRAWS,
    )


def _right(asked: Sequence[float], unasked: Sequence[float], told: Sequence[float]) -> int:
    """Return how many of `told` have an ending to themselves."""
    return len(align_times(sorted((*asked, *unasked)), told, WINDOW))
