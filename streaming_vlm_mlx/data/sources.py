"""Where samples come from: annotation files, and clips with a transcript."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from streaming_vlm_mlx.data.annotations import Annotation, AnnotationFile
from streaming_vlm_mlx.data.fields import BadSampleError
from streaming_vlm_mlx.data.lines import Offsets
from streaming_vlm_mlx.data.transcripts import Transcript, read_transcript
from streaming_vlm_mlx.errors import SvmError


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
            SvmError: the file can not be read any more.
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
