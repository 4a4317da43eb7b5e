"""Run a model on validation cases, one stretch of video at a time, and count what it gets right."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np

from streaming_vlm_mlx.background import run_coroutine
from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.text_metrics import TextCounts, Word, count_text, spread
from streaming_vlm_mlx.stream.events import Event, Failed, GenerationResult
from streaming_vlm_mlx.text.chat_template import STYLES
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.video_file import open_video

GREY = 128

OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class FigureTable:
    """A table of figures: a title, the names of the columns, and rows whose first value names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]


class JudgeCounts(Protocol):
    """What a judge counted in one stretch of video. Counts of several stretches add up."""

    def __add__(self, other: Self, /) -> Self:
        """Return the counts of both stretches together."""

    def figures(self) -> dict[str, Any]:
        """Return the figures by name, ready for JSON; numbers and None are rows of the table of figures."""

    def tables(self, grey: Self, /) -> list[FigureTable]:
        """Return the figures that need a table of their own, beside those of the run on `grey` pictures."""


class Judge(Protocol):
    """Measures more than words in one stretch of video. A plug-in for clips whose truth is known."""

    @property
    def words(self) -> tuple[Word, ...]:
        """The reference commentary."""

    @property
    def questions(self) -> Mapping[int, str]:
        """The viewer's questions, by whole second of the clip."""

    def judge(self, seconds: Sequence[GenerationResult]) -> JudgeCounts:
        """Count what is right in the model's `seconds`."""


@dataclass(frozen=True)
class ValidationCase:
    """A stretch of a clip with its reference.

    Attributes:
        clip: path of the video.
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        words: the reference commentary.
        number: the seed of the match, or the number of the record.
        settings: the record's own stream settings; they override those of the checkpoint.
        judge: measures more than words; None where only the words are known.
    """

    clip: str
    start: float
    end: float
    words: tuple[Word, ...]
    number: int
    settings: dict[str, Any] = field(default_factory=dict)
    judge: Judge | None = None


@dataclass(frozen=True)
class PendingCase:
    """A case by name. `load` opens its files, and raises SvmError if they are missing or broken."""

    name: str
    load: Callable[[], ValidationCase]


# Returns the judge of a record by the record's number, None for a clip without a truth.
FindJudge = Callable[[StreamingRecord, int], Judge | None]


def record_cases(files: Sequence[RecordFile], find_judge: FindJudge = lambda *_: None) -> Iterator[PendingCase]:
    """Yield a case for each record, named after its file and its number, from 0 up."""
    for file in files:
        for number in range(len(file)):
            yield _record_case(file, number, find_judge)


def _record_case(file: RecordFile, number: int, find_judge: FindJudge) -> PendingCase:
    def load() -> ValidationCase:
        record = file[number]
        judge = find_judge(record, number)
        settings: dict[str, Any] = {"fps": record.fps, "previous": record.previous}
        if record.query:
            settings["query"] = record.query
        words = judge.words if judge else record_words(record)
        return ValidationCase(record.video, record.video_start, record.video_end, words, number, settings, judge)

    return PendingCase(f"{file.path}:{number}", load)


def record_words(record: StreamingRecord) -> tuple[Word, ...]:
    """Return the commentary of a record; each turn's words are spread evenly over the turn."""
    return tuple(word for turn in record.turns for word in spread(turn.commentary, turn.start, turn.end))


def said_words(seconds: Iterable[GenerationResult]) -> tuple[Word, ...]:
    """Return the model's commentary; each second's words are spread evenly over the second."""
    return tuple(word for second in seconds for word in spread(second.commentary, second.start, second.end))


class Speaker(Protocol):
    """The part of `stream.engine.Engine` that a validation uses."""

    def play(
        self, chunks: Iterable[Chunk], due: Callable[[float, float], Awaitable[bool]], skips: bool
    ) -> AsyncGenerator[Event]:
        """Generate commentary on `chunks`, each when `due` allows it, and yield what happens.

        `skips` is whether `due` may leave a second out.
        """

    def ask(self, question: str) -> None:
        """Put `question` into the next second."""

    def configure(self, config: StreamConfig) -> None:
        """Change the settings from the next second on."""

    async def reset(self) -> None:
        """Forget everything that was seen and said."""


@dataclass(frozen=True)
class CaseRun:
    """One run of the model on a case.

    Attributes:
        seconds: the record of each second.
        text: counts of words.
        judged: counts of the case's judge; None for a case without one.
    """

    seconds: tuple[GenerationResult, ...]
    text: TextCounts
    judged: JudgeCounts | None = None


def load_model(speaker: Speaker, on_event: OnEvent) -> None:
    """Load the model, so that an unreadable checkpoint is reported before any match is filmed.

    Raises:
        SvmError: the checkpoint cannot be read.
    """
    run_coroutine(_collect(speaker, (), {}, on_event))


def run_case(
    speaker: Speaker, config: StreamConfig, case: ValidationCase, on_event: OnEvent, grey: bool = False
) -> CaseRun:
    """Run the model on a case from an empty session, and measure its commentary.

    Args:
        speaker: runs the model.
        config: the stream's settings; those of the case override them.
        case: the stretch of video.
        on_event: called with every event.
        grey: replace every frame by a uniform grey one.

    Raises:
        SvmError: the clip cannot be read, or the model fails.
    """
    config = config.merged(case.settings)
    speaker.configure(config)
    questions = case.judge.questions if case.judge else {}
    with open_video(case.clip, config.fps, STYLES[config.style].takes_ending_frames) as source:
        chunks = source.chunks(case.start, case.end - case.start)
        seconds = run_coroutine(_collect(speaker, grey_chunks(chunks) if grey else chunks, questions, on_event))
    if not seconds:
        raise SvmError(f"{case.clip}: the model finished no second of it.")
    text = count_text(case.words, said_words(seconds), case.start, case.end)
    return CaseRun(seconds, text, case.judge.judge(seconds) if case.judge else None)


def grey_chunks(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield `chunks` with uniform grey frames; sizes, times and number of frames stay."""
    return (replace(chunk, frames=np.full_like(chunk.frames, GREY)) for chunk in chunks)


async def _collect(
    speaker: Speaker, chunks: Iterable[Chunk], questions: Mapping[int, str], on_event: OnEvent
) -> tuple[GenerationResult, ...]:
    await speaker.reset()

    async def due(start: float, _: float) -> bool:
        if question := questions.get(round(start)):
            speaker.ask(question)
        return True

    seconds: list[GenerationResult] = []
    async with contextlib.aclosing(speaker.play(chunks, due, skips=False)) as events:
        async for event in events:
            on_event(event)
            if isinstance(event, Failed):
                raise SvmError(event.message)
            if isinstance(event, GenerationResult):
                seconds.append(event)
    return tuple(seconds)
