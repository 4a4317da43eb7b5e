"""What a model is validated on, one stretch of video at a time: simulated matches, or the records of any file."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.measures import Measured, measure
from streaming_vlm_mlx.eval.reference import Reference, said_words
from streaming_vlm_mlx.matches.tennis.judge import judge_answers, judge_notes
from streaming_vlm_mlx.matches.tennis.questions import questions
from streaming_vlm_mlx.matches.truth import TEST_SEEDS, Question, read_truth, stream
from streaming_vlm_mlx.stream.events import Event, Failed, GenerationResult
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.source import open_video

SIDECAR = ".truth.json"


@dataclass(frozen=True)
class Case:
    """A stretch of a clip with its truth.

    Attributes:
        clip: path of the video.
        reference: the truth, and from when to when it goes.
        number: its match's seed or its record's number, from which random draws begin.
        settings: of the stream, where they are the record's own; laid over those of the checkpoint.
        questions: what a viewer asks meanwhile.
    """

    clip: str
    reference: Reference
    number: int
    settings: dict[str, Any] = field(default_factory=dict)
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A case by name; `read` opens its files.

    `read` raises SvmError where they are absent or broken.
    """

    name: str
    read: Callable[[], Case]


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse matches that a model may have been trained on.

    Raises:
        SvmError: names the first seed that may be used.
    """
    if min(seeds, default=TEST_SEEDS) < TEST_SEEDS:
        raise SvmError(
            f"--seed is {min(seeds)}; matches below {TEST_SEEDS} are trained on. Validate on matches from there on, "
            "or name others with --records."
        )


def match_entry(clip: Path, every: float | None = None) -> Entry:
    """Return the entry of the match whose clip and sidecar are there, with a question in `every` seconds, if given."""

    def read() -> Case:
        truth = read_truth(clip.with_suffix(SIDECAR))
        asked = () if every is None else questions(truth, every)
        return Case(str(clip), Reference.of_truth(truth, 0.0, truth.seconds), truth.seed, questions=asked)

    return Entry(clip.stem, read)


def record_entries(files: Sequence[RecordFile]) -> Iterator[Entry]:
    """Yield an entry for each record, named by its file and its number, from 0 up."""
    for file in files:
        for number in range(len(file)):
            yield _record_entry(file, number)


def _record_entry(file: RecordFile, number: int) -> Entry:
    def read() -> Case:
        record = file[number]
        settings: dict[str, Any] = {"fps": record.fps, "previous": record.previous}
        if record.query:
            settings["query"] = record.query
        return Case(record.video, _reference(record), number, settings)

    return Entry(f"{file.path}:{number}", read)


def _reference(record: StreamingRecord) -> Reference:
    """Return what the sidecar beside the record's clip says, if there is one, else the record's own words."""
    sidecar = Path(record.video).with_suffix(SIDECAR)
    if not sidecar.is_file():
        return Reference.of_record(record)
    return Reference.of_truth(read_truth(sidecar), record.video_start, record.video_end)


GREY = 128

Show = Callable[[Event], None]


class Speaker(Protocol):
    """What is needed of `stream.engine.Engine`."""

    def play(self, chunks: Iterable[Chunk], due: Callable[[float, float], Awaitable[bool]]) -> AsyncGenerator[Event]:
        """Speak about `chunks`, each when `due` lets it, and yield what happens."""

    def ask(self, question: str) -> None:
        """Put `question` into the next second."""

    def configure(self, config: StreamConfig) -> None:
        """Change settings from the next second on."""

    async def reset(self) -> None:
        """Forget all that was seen and said."""


@dataclass(frozen=True)
class Run:
    """What came of a case.

    Attributes:
        seconds: what was said.
        measured: how good it was.
    """

    seconds: tuple[GenerationResult, ...]
    measured: Measured


def load(speaker: Speaker, show: Show) -> None:
    """Let the model load, so that a checkpoint which cannot be read shows before any match is filmed.

    Raises:
        SvmError: it cannot be read.
    """
    asyncio.run(_listen(speaker, (), (), show))


def run_case(speaker: Speaker, config: StreamConfig, case: Case, show: Show, blank: bool = False) -> Run:
    """Let the model speak about a case from a fresh start, and measure what it says.

    Args:
        speaker: has the model.
        config: the stream's settings; the case's own are laid over them.
        case: what to speak about.
        show: is told of every event.
        blank: put a grey picture in the place of every frame.

    Raises:
        SvmError: the clip cannot be read, or the model cannot speak about it.
    """
    config = config.merged(case.settings)
    speaker.configure(config)
    start, duration = case.reference.start, case.reference.end - case.reference.start
    with open_video(case.clip, config.fps) as source:
        chunks = source.chunks(start, duration)
        seconds = asyncio.run(_listen(speaker, blanked(chunks) if blank else chunks, case.questions, show))
    if not seconds:
        raise SvmError(f"{case.clip}: the model came to no second of it.")
    measured = measure_seconds(case.reference, seconds, case.number)
    return Run(seconds, replace(measured, answers=judge_answers(case.questions, seconds)))


def measure_seconds(reference: Reference, seconds: Iterable[GenerationResult], number: int) -> Measured:
    """Measure what was said; random draws begin from `number`."""
    said = tuple(seconds)
    measured = measure(reference, said_words(said), stream(number, "shuffled"))
    return replace(measured, notes=judge_notes(reference, said))


def blanked(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield `chunks` with uniform grey pictures of the same size, times and number."""
    return (replace(chunk, frames=np.full_like(chunk.frames, GREY)) for chunk in chunks)


async def _listen(
    speaker: Speaker, chunks: Iterable[Chunk], questions: Iterable[Question], show: Show
) -> tuple[GenerationResult, ...]:
    await speaker.reset()
    asked = {int(start): wording for start, _, wording, _ in questions}

    async def due(start: float, _: float) -> bool:
        if question := asked.get(round(start)):
            speaker.ask(question)
        return True

    seconds: list[GenerationResult] = []
    async with contextlib.aclosing(speaker.play(chunks, due)) as events:
        async for event in events:
            show(event)
            if isinstance(event, Failed):
                raise SvmError(event.message)
            if isinstance(event, GenerationResult):
                seconds.append(event)
    return tuple(seconds)
