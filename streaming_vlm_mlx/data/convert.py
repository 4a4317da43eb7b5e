"""From annotations, or a clip and its transcript, to a file of records: the whole job."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.annotations import Annotation
from streaming_vlm_mlx.data.builder import RecordBuilder
from streaming_vlm_mlx.data.clips import ClipCache
from streaming_vlm_mlx.data.fields import BadSampleError
from streaming_vlm_mlx.data.lines import Offsets
from streaming_vlm_mlx.data.lmm_dataset import LMMReader
from streaming_vlm_mlx.data.record import StreamingRecord
from streaming_vlm_mlx.data.resumable import ResumableFile
from streaming_vlm_mlx.data.selection import Selection
from streaming_vlm_mlx.data.sources import Candidate, Source
from streaming_vlm_mlx.data.summary import Summary, is_cut

# Samples between two notes of how far the job got: a fraction of a second's work.
_CHECKPOINT = 1000

Report = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConvertJob:
    """A conversion.

    Attributes:
        sources: where samples come from.
        out: the file of records to write.
        videos: folder that relative paths of videos start from.
        selection: which samples are taken.
        pixels: to count the tokens of each second's video; None leaves them uncounted.
        dataset_class: StreamingVLM's ``LMMDataset``, to word the samples; None for our own reader.
    """

    sources: Sequence[Source]
    out: Path
    videos: Path
    selection: Selection = field(default_factory=Selection)
    pixels: PixelConfig | None = None
    dataset_class: Any = None

    @property
    def cache(self) -> Path:
        """The database of clips beside the output."""
        return self.out.with_name(f"{self.out.name}.clips.sqlite")

    def identity(self) -> dict[str, Any]:
        """Return all that decides what is written, as JSON values."""
        files = [path for source in self.sources for path in source.files]
        return {
            "inputs": [_stamp(path) for path in files],
            "videos": str(self.videos.absolute()),
            "selection": self.selection.to_dict(),
            "pixels": self.pixels and self.pixels.to_dict(),
            "via": "lmm" if self.dataset_class else "own",
        }


def _stamp(path: Path) -> list[str | int]:
    try:
        state = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), state.st_size, state.st_mtime_ns]


def convert(
    job: ConvertJob, resume: bool = False, report: Report = lambda _: None, progress: Progress = lambda *_: None
) -> Summary:
    """Write the records of `job`, and return what was made.

    Args:
        job: what to do.
        resume: go on where an earlier run of the same job was broken off; the file comes out the same, byte for byte.
        report: is told ``file:line: what is wrong`` of each sample, or part of one, that is skipped.
        progress: is told how many samples of how many were looked at.

    Raises:
        SvmError: an input can not be read, the output can not be written, or another job was broken off here.
    """
    job.selection.check()
    numbers = job.selection.numbers(sum(len(source) for source in job.sources))
    with ResumableFile(job.out, job.identity(), resume) as out, ClipCache(job.cache) as clips:
        reader = LMMReader(job.dataset_class, job.videos) if job.dataset_class else None
        builder = RecordBuilder(clips, job.videos, job.out.parent, job.pixels, reader)
        done, summary = _restored(out)
        for candidate in _candidates(job.sources, numbers[done:]):
            if summary.samples == job.selection.max_samples:
                break
            if done % _CHECKPOINT == 0:
                out.checkpoint({"done": done, "summary": summary.to_dict()})
                progress(done, len(numbers))
            line = _convert_one(candidate, builder, job.selection, summary, report)
            out.write(line)
            done += 1
        progress(done, len(numbers))
        out.finish({"done": done, "summary": summary.to_dict()})
    return summary


def _restored(out: ResumableFile) -> tuple[int, Summary]:
    if out.progress is None:
        return 0, Summary()
    return out.progress["done"], Summary.from_dict(out.progress["summary"])


def _candidates(sources: Sequence[Source], numbers: Offsets) -> Iterator[Candidate]:
    """Read the samples `numbers`, counted through all `sources`."""
    begin = 0
    for source in sources:
        low, high = np.searchsorted(numbers, [begin, begin + len(source)])
        for at in range(low, high, _CHECKPOINT):
            yield from source.candidates(numbers[at : min(at + _CHECKPOINT, high)] - begin)
        begin += len(source)


def _convert_one(
    candidate: Candidate, builder: RecordBuilder, selection: Selection, summary: Summary, report: Report
) -> bytes:
    """Return the line of `candidate`'s record, empty when it is skipped or left out, and count it."""
    try:
        annotation = candidate.annotation
        if isinstance(annotation, BadSampleError):
            raise annotation
        reason = selection.leaves_out(annotation)
        if reason is None:
            record = builder.build(candidate, annotation)
            words = [len(turn.commentary.split()) for turn in record.turns]
            reason = _too_quiet(record, sum(words), selection.min_words)
        if reason is not None:
            summary.left_out[reason] += 1
            return b""
        line = record.to_line()
    except BadSampleError as error:
        summary.skipped[error.reason] += 1
        report(f"{candidate.where}: {error}")
        return b""
    for note in (*candidate.notes, *_losses(candidate.where, annotation, record, sum(words))):
        report(note)
    summary.add(record, words)
    return line


def _losses(where: str, annotation: Annotation, record: StreamingRecord, words: int) -> Iterator[str]:
    """Yield what of `annotation` is not in its `record`."""
    if annotation.end is None and len(annotation.words) > words:
        yield f"{where}: {len(annotation.words) - words} words behind the end of {record.video} are left out"
    if is_cut(record):
        yield f"{where}: cut at {record.turns[-1].end:g} s, where {record.video} or what LMMDataset reads of it ends"


def _too_quiet(record: StreamingRecord, words: int, min_words: int) -> str | None:
    if words >= min_words:
        return None
    if not words and not any(turn.answer for turn in record.turns):
        raise BadSampleError("no words", f"nothing is said from {record.video_start:g} to {record.video_end:g} s")
    return f"fewer than {min_words} words"
