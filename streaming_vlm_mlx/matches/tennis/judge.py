"""Judge commentary on simulated tennis: names, endings of points, scores, notes and answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from typing import Any, Self

import numpy as np

from streaming_vlm_mlx.data.records import StreamingRecord
from streaming_vlm_mlx.eval.report import BOTH
from streaming_vlm_mlx.eval.runner import FigureTable, PendingCase, ValidationCase, said_words
from streaming_vlm_mlx.eval.text_metrics import Word, align_times
from streaming_vlm_mlx.matches.match_truth import Event, Question, Truth, read_truth, stream
from streaming_vlm_mlx.matches.tennis.lexicon import ENDINGS, Mention, mentions
from streaming_vlm_mlx.matches.tennis.questions import QUESTIONS, descriptions, questions
from streaming_vlm_mlx.stream.events import GenerationResult

# Seconds between a mention in the commentary and its moment in the truth, at most.
WINDOW, SCORE_WINDOW = 2.0, 3.0
# An ending that the reference does not name is expected this many seconds after it happened.
USUAL_LAG = 1.0
# The reference names an ending within this many seconds. An ending in the last `TAIL` seconds may stay unnamed.
LONGEST_LAG, TAIL = 2.2, 4.0
# Words may refer to events up to this many seconds before the stretch.
EVENT_LAG = 3.0
# A pause of this many seconds ends a sentence without a full stop.
PAUSE = 0.5
DRAWS = 40
# The facts of a description, in its order.
FACTS = ("near", "far", "ball", "server", "score", "play")
SIDECAR = ".truth.json"
ENDING_FIGURES = ("event_recall", "event_precision", "event_precision_shuffled")


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of `total` are right."""

    right: int = 0
    total: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(self.right + other.right, self.total + other.total)

    @property
    def share(self) -> float | None:
        """The share of right ones, 0 to 1; None if there are none at all."""
        return self.right / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class EndingTally:
    """How well one kind of ending was reported.

    Attributes:
        happened: endings that the commentary has to report.
        reported: endings that it reported in time.
        said: mentions in the commentary.
        right: mentions of an ending that happened.
        by_chance: the same with the mentions at random times, as a mean over draws.
    """

    happened: int = 0
    reported: int = 0
    said: int = 0
    right: int = 0
    by_chance: float = 0.0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.happened + other.happened,
            self.reported + other.reported,
            self.said + other.said,
            self.right + other.right,
            self.by_chance + other.by_chance,
        )

    def figures(self) -> dict[str, float | None]:
        """Return recall, precision and precision by chance; all are 0 for silence about endings that happened."""
        unsaid = 0.0 if self.happened else None
        values = (
            self.reported / self.happened if self.happened else None,
            self.right / self.said if self.said else unsaid,
            self.by_chance / self.said if self.said else unsaid,
        )
        return dict(zip(ENDING_FIGURES, values, strict=True))


@dataclass(frozen=True, slots=True)
class TennisCounts:
    """What the judge counted. Counts of several stretches add up.

    Attributes:
        names: moments at which the reference names a player; right if the model's nearest name is the same.
        scores: scores that the reference calls; right if the model's nearest call is the same.
        endings: by kind of ending.
        notes: seconds in which the model noted something, by fact; right if the fact is.
        answers: the viewer's questions, by kind; right if the answer is.
    """

    names: Tally
    scores: Tally
    endings: Mapping[str, EndingTally]
    notes: Mapping[str, Tally] = field(default_factory=dict)
    answers: Mapping[str, Tally] = field(default_factory=dict)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.names + other.names,
            self.scores + other.scores,
            {kind: self.endings[kind] + other.endings[kind] for kind in ENDINGS},
            _add_tallies(self.notes, other.notes),
            _add_tallies(self.answers, other.answers),
        )

    def figures(self) -> dict[str, Any]:
        """Return the figures by name; a figure is None where there is nothing to measure.

        - ``team_accuracy``: of the moments at which the reference names a player, the share at which the model's
          nearest name within 2 s is the same. A missing name counts as wrong.
        - ``event_recall``: of the endings of points (ace, winner, net, out, fault, double fault), the share that the
          model reports within 2 s of the reference. A mention counts for one ending.
        - ``event_precision``: of the endings that the model reports, the share that happened, by the same pairing.
        - ``event_precision_shuffled``: the same with the mentions at random times over the clip, as a mean over draws.
        - ``score_accuracy``: of the scores that the reference calls, the share at which the model's nearest call
          within 3 s is the same.
        - ``endings``: the three figures of endings, by kind.
        - ``notes``: the share of right notes, by fact.
        - ``answers``: the number of questions and the share of right answers, by kind of question.
        """
        every = sum(self.endings.values(), EndingTally())
        return {
            "team_accuracy": self.names.share,
            **every.figures(),
            "score_accuracy": self.scores.share,
            "endings": {k: {"happened": e.happened, "said": e.said, **e.figures()} for k, e in self.endings.items()},
            "notes": {fact: tally.share for fact, tally in self.notes.items()},
            "answers": {kind: {"asked": t.total, "right": t.share} for kind, t in self.answers.items()},
        }

    def tables(self, grey: Self) -> list[FigureTable]:
        """Return the tables of endings, notes and answers; the last two only if there were any."""
        endings = tuple(
            (kind.replace("_", " "), e.happened, e.said, *e.figures().values()) for kind, e in self.endings.items()
        )
        notes = tuple((fact, t.share, grey.notes.get(fact, Tally()).share) for fact, t in self.notes.items())
        answers = tuple(
            (kind, t.total, t.share, grey.answers.get(kind, Tally()).share) for kind, t in self.answers.items()
        )
        columns = ("kind", "happened", "said", "recall", "precision", "by chance")
        tables = [FigureTable("endings of points, as seen", columns, endings)]
        if notes:
            tables.append(FigureTable("notes, share of seconds that are right", ("fact", *BOTH), notes))
        if answers:
            title = "answers to the viewer, share that are right"
            tables.append(FigureTable(title, ("question", "asked", *BOTH), answers))
        return tables


def _add_tallies(first: Mapping[str, Tally], second: Mapping[str, Tally]) -> dict[str, Tally]:
    return {name: first.get(name, Tally()) + second.get(name, Tally()) for name in dict.fromkeys((*first, *second))}


@dataclass(frozen=True)
class TennisJudge:
    """Judges commentary on a stretch of a simulated match; an `eval.runner.Judge`.

    Attributes:
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        words: the reference commentary.
        events: what happens in the stretch and up to `EVENT_LAG` before it.
        descriptions: what each whole second of the clip shows.
        asked: the viewer's questions with their answers.
        seed: seeds the random times of the chance control.
    """

    start: float
    end: float
    words: tuple[Word, ...]
    events: tuple[Event, ...] = ()
    descriptions: Mapping[int, str] = field(default_factory=dict)
    asked: tuple[Question, ...] = ()
    seed: int = 0

    @classmethod
    def of_truth(
        cls, truth: Truth, start: float, end: float, seed: int, asked: tuple[Question, ...] = ()
    ) -> "TennisJudge":
        """Return the judge of the stretch from `start` to `end` of the match whose sidecar is `truth`."""
        return cls(
            start=start,
            end=end,
            words=tuple(w for w in truth.words if start <= w.start < end),
            events=tuple(e for e in truth.events if start - EVENT_LAG <= e.time < end),
            descriptions={floor(begin): answer for begin, _, _, answer in descriptions(truth)},
            asked=asked,
            seed=seed,
        )

    @property
    def questions(self) -> Mapping[int, str]:
        """The viewer's questions, by whole second of the clip."""
        return {int(begin): wording for begin, _, wording, _ in self.asked}

    def judge(self, seconds: Sequence[GenerationResult]) -> TennisCounts:
        """Count what is right in the model's `seconds`."""
        return self.judge_words(
            said_words(seconds), judge_notes(self.descriptions, seconds), judge_answers(self.asked, seconds)
        )

    def judge_words(
        self,
        words: Sequence[Word],
        notes: Mapping[str, Tally] | None = None,
        answers: Mapping[str, Tally] | None = None,
    ) -> TennisCounts:
        """Count the names, endings and scores that are right in `words`; `notes` and `answers` are passed on."""
        reference, said = read_mentions(self.words), read_mentions(words)
        moments = ending_moments(self, reference)
        rng = stream(self.seed, "shuffled")
        return TennisCounts(
            names=_compare_values(reference, said, "player", WINDOW),
            scores=_compare_values(reference, said, "score", SCORE_WINDOW),
            endings={kind: self._ending(kind, moments, said, rng) for kind in ENDINGS},
            notes=notes or {},
            answers=answers or {},
        )

    def _ending(
        self, kind: str, moments: Sequence["EndingMoment"], said: Sequence[Mention], rng: np.random.Generator
    ) -> EndingTally:
        required = [m.time for m in moments if m.kind == kind and m.required]
        optional = [m.time for m in moments if m.kind == kind and not m.required]
        mentioned = [m.time for m in said if m.kind == kind]
        times = np.sort(rng.uniform(self.start, self.end, (DRAWS, len(mentioned))), axis=1).tolist()
        return EndingTally(
            happened=len(required),
            reported=len(align_times(required, mentioned, WINDOW)),
            said=len(mentioned),
            right=_count_right(required, optional, mentioned),
            by_chance=sum(_count_right(required, optional, drawn) for drawn in times) / DRAWS,
        )


def match_case(clip: Path, every: float | None = None) -> PendingCase:
    """Return the case of a filmed match; `every` asks a viewer's question once in that many seconds."""

    def load() -> ValidationCase:
        truth = read_truth(clip.with_suffix(SIDECAR))
        asked = () if every is None else questions(truth, every)
        judge = TennisJudge.of_truth(truth, 0.0, truth.seconds, truth.seed, asked)
        return ValidationCase(str(clip), judge.start, judge.end, judge.words, truth.seed, judge=judge)

    return PendingCase(clip.stem, load)


def find_judge(record: StreamingRecord, number: int) -> TennisJudge | None:
    """Return the judge of record `number` if its clip has a truth sidecar beside it.

    Raises:
        SvmError: the sidecar cannot be read.
    """
    sidecar = Path(record.video).with_suffix(SIDECAR)
    if not sidecar.is_file():
        return None
    return TennisJudge.of_truth(read_truth(sidecar), record.video_start, record.video_end, number)


@dataclass(frozen=True, slots=True)
class EndingMoment:
    """When an ending has to be reported; one that is not `required` may stay unreported."""

    time: float
    kind: str
    required: bool


def read_mentions(words: Sequence[Word]) -> list[Mention]:
    """Return what `words` mention, in order of time; a pause ends a sentence."""
    return [mention for stretch in _split_at_pauses(words) for mention in mentions(stretch)]


def ending_moments(judge: TennisJudge, reference: Sequence[Mention]) -> list[EndingMoment]:
    """Return when each ending of a point has to be reported, in order of time.

    That is when the `reference` mentions it, else a second after it happened. An ending at either edge of the stretch
    that the reference does not mention is not required, but it may be reported.
    """
    moments: list[EndingMoment] = []
    for kind in ENDINGS:
        times = [m.time for m in reference if m.kind == kind]
        for event in (e for e in judge.events if e.kind == kind):
            at = next((t for t in times if 0 <= t - event.time <= LONGEST_LAG), None)
            if at is None:
                within = judge.start <= event.time < judge.end - TAIL
                moments.append(EndingMoment(event.time + USUAL_LAG, kind, within))
            else:
                times.remove(at)
                moments.append(EndingMoment(at, kind, True))
    return sorted(moments, key=lambda m: m.time)


def _split_at_pauses(words: Sequence[Word]) -> Iterator[list[Word]]:
    stretch: list[Word] = []
    for word in words:
        if stretch and word.start - stretch[-1].end >= PAUSE:
            yield stretch
            stretch = []
        stretch.append(word)
    if stretch:
        yield stretch


def _compare_values(reference: Sequence[Mention], said: Sequence[Mention], kind: str, window: float) -> Tally:
    """Count the reference's mentions of `kind` at which the model's nearest mention has the same value."""
    expected, mentioned = ([m for m in part if m.kind == kind] for part in (reference, said))
    pairs = align_times([m.time for m in expected], [m.time for m in mentioned], window)
    return Tally(sum(expected[e].value == mentioned[s].value for e, s in pairs), len(expected))


def _count_right(required: Sequence[float], optional: Sequence[float], mentioned: Sequence[float]) -> int:
    """Count the mentions that can be paired with an ending."""
    return len(align_times(sorted((*required, *optional)), mentioned, WINDOW))


# The kind of question by its wording.
KINDS = {wording: kind for kind, (wordings, _) in QUESTIONS.items() for wording in wordings}


def judge_answers(asked: Iterable[Question], seconds: Iterable[GenerationResult]) -> Mapping[str, Tally]:
    """Count, by kind of question, the answers that have the very words of the truth.

    A question in a second without a record counts as answered wrongly.
    """
    answers = {round(second.start): second.answer for second in seconds}
    tallies: dict[str, Tally] = {}
    for begin, _, wording, truth in asked:
        right = _plain(answers.get(int(begin), "")) == _plain(truth)
        tallies[KINDS[wording]] = tallies.get(KINDS[wording], Tally()) + Tally(int(right), 1)
    return dict(sorted(tallies.items()))


def _plain(sentence: str) -> str:
    return sentence.strip().rstrip(".").lower()


def judge_notes(described: Mapping[int, str], seconds: Iterable[GenerationResult]) -> Mapping[str, Tally]:
    """Count, for each of `FACTS`, the notes that have the fact right.

    Args:
        described: what each whole second shows.
        seconds: the model's seconds; those without a note are left out.
    """
    notes = [
        (_facts(described[round(s.start)]), _facts(s.notes)) for s in seconds if s.notes and round(s.start) in described
    ]
    return {
        name: Tally(sum(truth[i : i + 1] == noted[i : i + 1] for truth, noted in notes), len(notes))
        for i, name in enumerate(FACTS)
        if notes
    }


def _facts(sentence: str) -> list[str]:
    return _plain(sentence).split(", ")
