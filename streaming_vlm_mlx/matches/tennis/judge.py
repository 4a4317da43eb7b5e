"""Which of two lists of moments belong together, by time alone and one to one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.eval.reference import Reference
from streaming_vlm_mlx.matches.tennis.lexicon import ENDINGS, Mention, mentions
from streaming_vlm_mlx.matches.tennis.questions import ASKED
from streaming_vlm_mlx.matches.truth import Question, Word
from streaming_vlm_mlx.stream.events import GenerationResult

Costs = npt.NDArray[np.int64]


class Pair(NamedTuple):
    """Places of two moments that belong together: one that is asked for, and one that was said."""

    asked: int
    said: int


def align_times(asked: Sequence[float], said: Sequence[float], window: float) -> list[Pair]:
    """Pair moments that lie at most `window` seconds apart, each with one other at most, none crossing another.

    Among all such pairings this is one of least cost: the seconds between partners, and `window` for every moment that
    stays alone. So partners are near one another, and a surplus moment pushes none of its neighbours away from theirs.
    The method is the dynamic programme of edit distances (Wagner and Fischer 1974), in whole milliseconds.

    Args:
        asked: seconds, ascending.
        said: seconds, ascending.
        window: seconds.
    """
    first, second, alone = _milliseconds(asked), _milliseconds(said), round(1000 * window)
    table = _table(first, second, alone)
    pairs: list[Pair] = []
    i, j = len(first), len(second)
    while i and j:
        apart = abs(int(first[i - 1]) - int(second[j - 1]))
        if apart <= alone and table[i, j] == table[i - 1, j - 1] + apart:
            i, j = i - 1, j - 1
            pairs.append(Pair(i, j))
        elif table[i, j] == table[i - 1, j] + alone:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _milliseconds(times: Sequence[float]) -> Costs:
    return np.round(1000 * np.asarray(times, np.float64)).astype(np.int64)


def _table(first: Costs, second: Costs, alone: int) -> Costs:
    """Return the least cost of all beginnings, int64 [asked + 1, said + 1]."""
    columns = alone * np.arange(len(second) + 1, dtype=np.int64)
    table = np.empty((len(first) + 1, len(second) + 1), np.int64)
    table[0] = columns
    for i, time in enumerate(first, 1):
        best = table[i - 1] + alone
        apart = np.abs(second - time)
        paired = np.where(apart <= alone, table[i - 1, :-1] + apart, best[1:])
        best[1:] = np.minimum(best[1:], paired)
        # Moments of the second list that stay alone run along the row.
        table[i] = np.minimum.accumulate(best - columns) + columns
    return table


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


# What each wording asks for, by the names of `matches.tennis.questions`.
KINDS = {wording: kind for kind, (wordings, _) in ASKED.items() for wording in wordings}


def judge_answers(questions: Iterable[Question], seconds: Iterable[GenerationResult]) -> Mapping[str, Share]:
    """Return by kind of question how many of `questions` were answered with the very words of the truth.

    A question in a second that was not spoken counts as answered wrongly.
    """
    answers = {round(second.start): second.answer for second in seconds}
    shares: dict[str, Share] = {}
    for start, _, wording, truth in questions:
        share = shares.get(KINDS[wording], Share(0, 0))
        right = _plain(answers.get(int(start), "")) == _plain(truth)
        shares[KINDS[wording]] = Share(share.hits + right, share.of + 1)
    return dict(sorted(shares.items()))


def _plain(sentence: str) -> str:
    return sentence.strip().rstrip(".").lower()


# The facts of `matches.tennis.description`, in its order.
FACTS = ("near", "far", "ball", "server", "score", "play")


def judge_notes(reference: Reference, seconds: Iterable[GenerationResult]) -> Mapping[str, Share]:
    """Return for each of `FACTS` in how many seconds the note has it right, of those in which something was noted.

    Nothing is returned where the truth does not know what is to be seen.
    """
    pairs = [
        (reference.descriptions[round(s.start)], s.notes)
        for s in seconds
        if s.notes and round(s.start) in reference.descriptions
    ]
    told = [(_facts(truth), _facts(noted)) for truth, noted in pairs]
    return {
        name: Share(sum(truth[i : i + 1] == noted[i : i + 1] for truth, noted in told), len(told))
        for i, name in enumerate(FACTS)
        if told
    }


def _facts(sentence: str) -> list[str]:
    return sentence.strip().rstrip(".").lower().split(", ")
