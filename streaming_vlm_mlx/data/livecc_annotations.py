"""Annotation files of StreamingVLM and LiveCC: one conversation per line, located by an index of byte offsets.

StreamingVLM (arXiv 2510.09608) stores the index of ``X_with_seeks.jsonl`` in ``X_seeks.jsonl`` beside it; LiveCC
(arXiv 2504.16030) stores it in the last line of the annotation file.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from streaming_vlm_mlx.data.json_fields import (
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
from streaming_vlm_mlx.input_files import read_file

# The largest index of byte offsets: of ten million samples.
LARGEST_INDEX = 1 << 27

Question = tuple[float, float, str, str]


@dataclass(frozen=True, slots=True)
class Annotation:
    """The commentary of a stretch of a clip, word by word.

    Attributes:
        video: path of the clip as written in the annotation.
        start: start of the stretch, in seconds from the start of the clip.
        end: end of the stretch, None for the end of the clip.
        words: start, end and stripped text of each word, in file order.
        questions: start, end, question and answer of each question.
        query: the viewer's request.
        previous: the commentary before the stretch.
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
        """Parse a conversation: the user's video and query, the assistant's ``text_stream`` and ``qa_stream``.

        Raises:
            BadSampleError: the line is not JSON, has a different structure, or has reversed times.
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
    raise BadSampleError("not a streamed conversation", "the video, the query or the text_stream is missing")


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
    """Random access to the samples of an annotation file; memory per sample is two integers.

    Attributes:
        path: the JSONL file.
        offsets: int64 [samples], byte offset of each sample.
        numbers: int64 [samples], line number of each sample, from 1.
        index: the file of byte offsets beside `path`, None if there is none.
    """

    path: Path
    offsets: Offsets
    numbers: Offsets
    index: Path | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Locate the samples of `path` by the index beside it, the index in its last line, or else take all lines.

        Raises:
            SvmError: the file is missing or empty, or the index does not match it.
        """
        starts, numbers = line_starts(path)
        if not len(starts):
            raise SvmError(f"{path} is empty; it must have one conversation per line.")
        beside = path.with_name(path.name.removesuffix(".jsonl").replace("_with_seeks", "") + "_seeks.jsonl")
        if beside.exists():
            offsets = parse_offsets(read_file(beside, LARGEST_INDEX))
            if offsets is None:
                raise SvmError(f"{beside} is not a list of byte offsets; remove it to use all lines of {path.name}.")
            file = cls._indexed(path, str(beside), offsets, starts, numbers)
            return replace(file, index=beside)
        (last,) = read_lines(path, starts[-1:])
        offsets = parse_offsets(last)
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
                f"{index} does not match {path.name}: entry {entry + 1} points at byte {offsets[entry]}, "
                "where no sample starts; remove the index to use all lines."
            )
        return cls(path, offsets, numbers[places])

    def __len__(self) -> int:
        return len(self.offsets)

    def lines(self, numbers: Offsets) -> Iterator[bytes]:
        """Yield the raw lines of the samples `numbers`."""
        return read_lines(self.path, self.offsets[numbers])


def parse_offsets(line: bytes) -> Offsets | None:
    """Return int64 [n], the byte offsets in the JSON list `line`; None if it is something else.

    Does not create a Python object per number, because there may be millions.
    """
    inner = line.strip()
    if inner[:1] != b"[" or inner[-1:] != b"]":
        return None
    inner = inner[1:-1].strip()
    if inner.translate(None, b"0123456789, \r\n"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # NumPy 1 warns where NumPy 2 raises ValueError
            offsets = np.fromstring(inner.decode(), np.int64, sep=",")
    except (ValueError, DeprecationWarning):
        return None
    return offsets if len(offsets) == (inner.count(b",") + 1 if inner else 0) else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample after parsing, valid or not.

    Attributes:
        where: ``file:line``, for messages.
        annotation: the annotation, or why it is invalid.
        path: the file that contains it.
        offset: byte offset in `path`.
        notes: one line for each part that was skipped.
        is_pair: whether the clip was named by the user, not by the file.
    """

    where: str
    annotation: Annotation | BadSampleError
    path: Path
    offset: int = 0
    notes: tuple[str, ...] = ()
    is_pair: bool = False


class SampleSource(Protocol):
    """Random access to the samples of an input."""

    def __len__(self) -> int: ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The input files."""

    def candidates(self, numbers: Offsets) -> Iterator[Candidate]:
        """Yield the samples `numbers`, int64 ascending."""


@dataclass(frozen=True)
class AnnotationSamples:
    """The `SampleSource` of an annotation file."""

    file: AnnotationFile

    def __len__(self) -> int:
        return len(self.file)

    @property
    def files(self) -> tuple[Path, ...]:
        """The input files."""
        return (self.file.path, self.file.index) if self.file.index else (self.file.path,)

    def candidates(self, numbers: Offsets) -> Iterator[Candidate]:
        """Yield the samples `numbers`, int64 ascending.

        Raises:
            SvmError: the file can no longer be read.
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
class TranscriptSamples:
    """The `SampleSource` of a clip with its transcript: one sample.

    Attributes:
        video: the clip.
        path: the transcript file.
        transcript: its contents.
        query: the viewer's request.
        previous: the commentary before the clip.
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
        """The input files."""
        return self.video, self.path

    def candidates(self, numbers: Offsets) -> Iterator[Candidate]:
        """Yield the sample if `numbers`, int64, has its number 0."""
        video = str(self.video.absolute())
        annotation = Annotation(video, 0.0, None, self.transcript.words, (), self.query, self.previous)
        for _ in numbers:
            yield Candidate(str(self.path), annotation, self.path, notes=self.transcript.skipped, is_pair=True)


def open_samples(inputs: list[Path], query: str = "", previous: str = "") -> list[SampleSource]:
    """Open annotation files (``.jsonl``), and clips that are each followed by a transcript.

    Args:
        inputs: the files.
        query: the viewer's request, for clips with a transcript.
        previous: the commentary before the clip, for clips with a transcript.

    Raises:
        SvmError: a file is missing or of another kind, or a clip has no transcript.
    """
    sources: list[SampleSource] = []
    waiting = iter(inputs)
    for path in waiting:
        if path.suffix == ".jsonl":
            sources.append(AnnotationSamples(AnnotationFile.open(path)))
            continue
        transcript = next(waiting, None)
        if transcript is None or transcript.suffix == ".jsonl":
            raise SvmError(f"{path} has no transcript; give one after it, or give an annotation file (.jsonl).")
        sources.append(TranscriptSamples(path, transcript, read_transcript(transcript), query, previous))
    return sources
