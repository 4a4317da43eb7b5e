"""Which samples of a dataset are taken."""

import fnmatch
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.data.annotations import Annotation, Candidate, Source
from streaming_vlm_mlx.data.clip_metadata import ClipCache
from streaming_vlm_mlx.data.jsonl import BadSampleError, Offsets
from streaming_vlm_mlx.data.record_builder import LMMReader, RecordBuilder
from streaming_vlm_mlx.data.records import StreamingRecord
from streaming_vlm_mlx.data.resumable_file import ResumableFile
from streaming_vlm_mlx.errors import SvmError

Split = Literal["all", "train", "valid"]


@dataclass(frozen=True)
class Selection(FromDict):
    """What is taken.

    Attributes:
        games: glob that a video's path must match, where ``*`` also matches ``/``; null for any.
        max_samples: records written at most; null for all.
        every: one sample of so many.
        min_words: samples with fewer words of commentary are left out; 0 keeps silent ones.
        split: the clips to learn from (``train``), those held out (``valid``), or ``all``.
        held_out: share of clips that is held out; a clip's path alone decides, so that no clip is on both sides.
        shard: which part of the samples, from 1 up.
        shards: how many parts there are.
    """

    games: str | None = None
    max_samples: int | None = None
    every: int = 1
    min_words: int = 1
    split: Split = "all"
    held_out: float = 0.05
    shard: int = 1
    shards: int = 1

    def check(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            SvmError: names the first.
        """
        if self.every < 1:
            raise SvmError(f"every is {self.every}; one sample of every 1, 2, 3 or more can be taken.")
        if not 1 <= self.shard <= self.shards:
            raise SvmError(
                f"shard is {self.shard}/{self.shards}; it can be 1/{self.shards} to {self.shards}/{self.shards}."
            )
        if not 0 <= self.held_out <= 1:
            raise SvmError(f"held_out is {self.held_out}; it is a share, from 0 to 1.")
        if self.max_samples is not None and self.max_samples < 1:
            raise SvmError(f"max_samples is {self.max_samples}; it must be 1 or more.")

    def numbers(self, total: int) -> Offsets:
        """Return int64 [n], which of `total` samples are looked at."""
        return np.arange(0, total, self.every)[self.shard - 1 :: self.shards]

    def leaves_out(self, annotation: Annotation) -> str | None:
        """Return why `annotation` is not taken, or None when it is."""
        if self.games is not None and not fnmatch.fnmatchcase(annotation.video, self.games):
            return "another game"
        if self.split != "all" and (self.split == "valid") != self._is_held_out(annotation.video):
            return "the other split"
        return None

    def _is_held_out(self, video: str) -> bool:
        digest = hashlib.blake2b(video.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.held_out * 2**64


def is_cut(record: StreamingRecord) -> bool:
    """Whether a second or more of what `record` was made of is not in it, because its clip or a limit ends there."""
    return record.turns[-1].end + 1 <= record.video_end


@dataclass
class Summary:
    """A running count.

    Attributes:
        samples: records written.
        seconds: of video in them.
        silent: seconds in which nothing is said.
        words: of commentary in them.
        questions: that viewers ask in them.
        cut: records that end before their annotation does.
        skipped: samples that could not be used, by reason.
        left_out: samples that a filter left out, by filter.
    """

    samples: int = 0
    seconds: int = 0
    silent: int = 0
    words: int = 0
    questions: int = 0
    cut: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, record: StreamingRecord, words: list[int]) -> None:
        """Count `record`; `words` are those of its seconds."""
        self.samples += 1
        self.seconds += len(words)
        self.silent += words.count(0)
        self.words += sum(words)
        self.questions += sum(bool(turn.question) for turn in record.turns)
        self.cut += is_cut(record)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back."""
        return {**vars(self), "skipped": dict(self.skipped), "left_out": dict(self.left_out)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        counters = {name: Counter(values[name]) for name in ("skipped", "left_out")}
        return cls(**{**values, **counters})

    def lines(self) -> list[str]:
        """Return the count in words, a line each."""
        share = f" ({self.silent / self.seconds:.0%})" if self.seconds else ""
        lines = [
            f"samples         {self.samples:,}",
            f"video           {timedelta(seconds=self.seconds)}",
            f"words           {self.words:,}",
            f"silent seconds  {self.silent:,}{share}",
            f"questions       {self.questions:,}",
            f"cut short       {self.cut:,}",
        ]
        for name, counter in (("skipped", self.skipped), ("left out", self.left_out)):
            lines.append(f"{name:15} {sum(counter.values()):,}")
            lines += [f"  {count:,} × {reason}" for reason, count in counter.most_common()]
        return lines


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
        SvmError: an input cannot be read, the output cannot be written, or another job was broken off here.
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
