"""Annotation files of StreamingVLM and LiveCC: one conversation a line, found by an index of byte offsets.

StreamingVLM (arXiv 2510.09608) keeps the index of ``X_with_seeks.jsonl`` in ``X_seeks.jsonl`` beside it; LiveCC
(arXiv 2504.16030) keeps it on the last line of the annotation file itself.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from streaming_vlm_mlx.data.jsonl import (
    BadSampleError,
    Offsets,
    is_seconds,
    line_starts,
    parse_json,
    read_lines,
    seconds,
    text,
)
from streaming_vlm_mlx.data.transcripts import Transcript, Word, read_transcript
from streaming_vlm_mlx.errors import SvmError

Question = tuple[float, float, str, str]


@dataclass(frozen=True, slots=True)
class Annotation:
    """What was said over a stretch of a clip, word by word.

    Attributes:
        video: the clip's path, as the annotation has it.
        start: of the stretch, in seconds from the clip's beginning.
        end: of the stretch; None for the clip's end.
        words: start, end and text of each word, in the order of the file; the text without white space around it.
        questions: start and end of each question, the question, its answer.
        query: what the viewer asked for.
        previous: what was said before the stretch.
    """

    video: str
    start: float
    end: float | None
    words: tuple[Word, ...]
    questions: tuple[Question, ...] = ()
    query: str = ""
    previous: str = ""

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read one conversation: a user's video and query, an assistant's ``text_stream`` and ``qa_stream``.

        Raises:
            BadSampleError: the line is not JSON, has another shape, or its times are reversed.
        """
        video, query, stream = _parts(parse_json(line))
        start, end = seconds(video, "video_start"), seconds(video, "video_end")
        if not start < end:
            raise BadSampleError("reversed times", f"video_start {start} is not before video_end {end}")
        return cls(
            text(video, "video"),
            start,
            end,
            tuple(_word(word) for word in _list(stream, "text_stream")),
            tuple(_question(question) for question in _list(stream, "qa_stream")),
            text(query, "text", ""),
            text(query, "previous", ""),
        )


def _parts(conversation: object) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    match conversation:
        case [
            {"role": "user", "content": [{"video": _} as video, dict() as query]},
            {"role": "assistant", "content": [{"text_stream": _} as stream, *_]},
        ]:
            return video, query, stream
    raise BadSampleError("not a streamed conversation", "no video, query and text_stream where they should be")


def _list(values: dict[str, Any], key: str) -> list[object]:
    value = values.get(key) or []
    if not isinstance(value, list):
        raise BadSampleError("malformed value", f"{key} is {value!r:.40}")
    return value


def _word(value: object) -> Word:
    if isinstance(value, list) and len(value) == 3:
        start, end, word = value
        if isinstance(word, str) and is_seconds(start) and is_seconds(end):
            if start > end:
                raise BadSampleError("reversed times", f"the word {word!r:.40} runs from {start} to {end}")
            return start, end, word.strip()
    raise BadSampleError("malformed word", f"{value!r:.60}")


def _question(value: object) -> Question:
    match value:
        case [start, end, str(question), str(answer)] if is_seconds(start) and is_seconds(end):
            return start, end, question, answer
    raise BadSampleError("malformed question", f"{value!r:.60}")


@dataclass(frozen=True)
class AnnotationFile:
    """The samples of an annotation file by number; eight bytes are kept of each.

    Attributes:
        path: the JSONL file.
        offsets: int64 [samples], the byte where each starts.
        numbers: int64 [samples], its line number, counted from 1.
    """

    path: Path
    offsets: Offsets
    numbers: Offsets

    @classmethod
    def open(cls, path: Path) -> Self:
        """Find the samples of `path` by the index beside it, the index on its last line, or else all lines.

        Raises:
            SvmError: the file is absent or empty, or the index does not fit it.
        """
        starts, numbers = line_starts(path)
        if not len(starts):
            raise SvmError(f"{path} is empty; it should hold one conversation a line.")
        beside = path.with_name(path.name.removesuffix(".jsonl").replace("_with_seeks", "") + "_seeks.jsonl")
        if beside.exists():
            offsets = _index(_read(beside))
            if offsets is None:
                raise SvmError(f"{beside} is no list of byte offsets; remove it to take every line of {path.name}.")
            return cls._indexed(path, str(beside), offsets, starts, numbers)
        (last,) = read_lines(path, starts[-1:])
        offsets = _index(last)
        if offsets is None:
            return cls(path, starts, numbers)
        return cls._indexed(path, f"The last line of {path}", offsets, starts[:-1], numbers[:-1])

    @classmethod
    def _indexed(cls, path: Path, index: str, offsets: Offsets, starts: Offsets, numbers: Offsets) -> Self:
        places = np.minimum(np.searchsorted(starts, offsets), max(len(starts) - 1, 0))
        fits = starts[places] == offsets if len(starts) else np.zeros(len(offsets), np.bool_)
        if not fits.all():
            entry = int(np.argmin(fits))
            raise SvmError(
                f"{index} does not fit {path.name}: its entry {entry + 1} points at byte {offsets[entry]}, "
                "where no sample starts; remove the index to take every line."
            )
        return cls(path, offsets, numbers[places])

    def __len__(self) -> int:
        return len(self.offsets)

    def lines(self, numbers: Offsets) -> Iterator[bytes]:
        """Yield the raw lines of the samples `numbers`."""
        return read_lines(self.path, self.offsets[numbers])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error


def _index(line: bytes) -> Offsets | None:
    """Return the byte offsets that `line` lists, or None when it holds something else.

    A JSON list of numbers is read without making each a Python object: there may be millions.
    """
    inner = line.strip()
    if inner[:1] != b"[" or inner[-1:] != b"]":
        return None
    inner = inner[1:-1].strip()
    if inner.translate(None, b"0123456789, \r\n"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how numpy 1 says what 2 raises as ValueError
            offsets = np.fromstring(inner.decode(), np.int64, sep=",")
    except (ValueError, DeprecationWarning):
        return None
    return offsets if len(offsets) == (inner.count(b",") + 1 if inner else 0) else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample that was read, well or badly.

    Attributes:
        where: ``file:line``, for messages.
        annotation: what it says, or what is wrong with it.
        path: the file that it stands in.
        offset: the byte where it starts.
        notes: parts of it that were passed over, a line each.
    """

    where: str
    annotation: Annotation | BadSampleError
    path: Path
    offset: int = 0
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """Samples by number."""

    def __len__(self) -> int: ...

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read."""

    def candidates(self, numbers: Offsets) -> Iterator[Candidate]:
        """Read the samples `numbers`, int64, ascending."""


@dataclass(frozen=True)
class AnnotationSource:
    """The samples of an annotation file."""

    file: AnnotationFile

    def __len__(self) -> int:
        return len(self.file)

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read."""
        return (self.file.path,)

    def candidates(self, numbers: Offsets) -> Iterator[Candidate]:
        """Read the samples `numbers`, int64, ascending.

        Raises:
            SvmError: the file cannot be read any more.
        """
        offsets, lines = self.file.offsets[numbers].tolist(), self.file.numbers[numbers].tolist()
        for offset, number, line in zip(offsets, lines, self.file.lines(numbers), strict=True):
            annotation: Annotation | BadSampleError
            try:
                annotation = Annotation.from_line(line)
            except BadSampleError as error:
                annotation = error
            yield Candidate(f"{self.file.path}:{number}", annotation, self.file.path, offset)


@dataclass(frozen=True)
class TranscriptSource:
    """One sample: a whole clip with its transcript.

    Attributes:
        video: the clip.
        path: the transcript's file.
        transcript: what is said.
        query: what the viewer asks for.
        previous: what was said before the clip.
    """

    video: Path
    path: Path
    transcript: Transcript
    query: str = ""
    previous: str = ""

    def __len__(self) -> int:
        return 1

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read."""
        return self.video, self.path

    def candidates(self, numbers: Offsets) -> Iterator[Candidate]:
        """Give the one sample, if it is among `numbers`."""
        video = str(self.video.absolute())
        annotation = Annotation(video, 0.0, None, self.transcript.words, (), self.query, self.previous)
        for _ in numbers:
            yield Candidate(str(self.path), annotation, self.path, notes=self.transcript.skipped)


def open_sources(inputs: list[Path], query: str = "", previous: str = "") -> list[Source]:
    """Open annotation files (``.jsonl``), or clips that are each followed by their transcript.

    Args:
        inputs: the files.
        query: of clips with a transcript, what the viewer asks for.
        previous: of clips with a transcript, what was said before.

    Raises:
        SvmError: a file is absent or of another kind, or a clip stands alone.
    """
    sources: list[Source] = []
    waiting = iter(inputs)
    for path in waiting:
        if path.suffix == ".jsonl":
            sources.append(AnnotationSource(AnnotationFile.open(path)))
            continue
        transcript = next(waiting, None)
        if transcript is None or transcript.suffix == ".jsonl":
            raise SvmError(f"{path} stands alone; name its transcript behind it, or an annotation file (.jsonl).")
        sources.append(TranscriptSource(path, transcript, read_transcript(transcript), query, previous))
    return sources
