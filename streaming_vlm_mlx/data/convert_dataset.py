"""Convert datasets (annotation files, clips with a transcript) to training records."""

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
from streaming_vlm_mlx.data.clip_metadata import ClipCache
from streaming_vlm_mlx.data.json_fields import MOST_UNREADABLE, BadSampleError, Offsets
from streaming_vlm_mlx.data.livecc_annotations import Annotation, Candidate, SampleSource
from streaming_vlm_mlx.data.record_builder import BuiltRecord, LMMReader, RecordBuilder
from streaming_vlm_mlx.data.records import StreamingRecord, may_be_records
from streaming_vlm_mlx.data.resumable_file import ResumableFile
from streaming_vlm_mlx.errors import SvmError

Split = Literal["all", "train", "valid"]


@dataclass(frozen=True)
class Filters(FromDict):
    """Which samples are converted.

    Attributes:
        games: glob that the path of a video must match, where ``*`` also matches ``/``; null for any.
        max_samples: maximum number of records; null for no limit.
        every: convert one sample of this many.
        min_words: skip samples with fewer words of commentary; 0 keeps silent ones.
        split: convert the clips of the training set (``train``), of the validation set (``valid``), or ``all``.
        held_out: share of clips in the validation set; the path alone decides, so a clip is never in both sets.
        shard: which part of the samples to convert, from 1.
        shards: number of parts.
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
        """Check the values.

        Raises:
            SvmError: a value is out of range.
        """
        if self.every < 1:
            raise SvmError(f"every is {self.every}; it must be 1 or more.")
        if not 1 <= self.shard <= self.shards:
            raise SvmError(
                f"shard is {self.shard}/{self.shards}; it must be 1/{self.shards} to {self.shards}/{self.shards}."
            )
        if not 0 <= self.held_out <= 1:
            raise SvmError(f"held_out is {self.held_out}; it must be from 0 to 1.")
        if self.max_samples is not None and self.max_samples < 1:
            raise SvmError(f"max_samples is {self.max_samples}; it must be 1 or more.")

    def numbers(self, total: int) -> Offsets:
        """Return int64 [n], the numbers of the samples to read, out of `total`."""
        return np.arange(0, total, self.every)[self.shard - 1 :: self.shards]

    def reason_to_skip(self, annotation: Annotation) -> str | None:
        """Return why `annotation` is filtered out, None if it is not."""
        if self.games is not None and not fnmatch.fnmatchcase(annotation.video, self.games):
            return "another game"
        if self.split != "all" and (self.split == "valid") != self._is_held_out(annotation.video):
            return "the other split"
        return None

    def _is_held_out(self, video: str) -> bool:
        digest = hashlib.blake2b(video.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.held_out * 2**64


def is_cut(record: StreamingRecord) -> bool:
    """Whether `record` lacks a second or more of its annotation, because the clip or the frame limit ends earlier."""
    return record.turns[-1].end + 1 <= record.video_end


@dataclass
class ConversionSummary:
    """Counts of a conversion.

    Attributes:
        samples: records written.
        seconds: seconds of video in them.
        silent: seconds without commentary.
        words: words of commentary.
        questions: questions of viewers.
        cut: records that end before their annotation.
        dropped_turns: turns of ``LMMDataset`` after the end of their record, dropped.
        skipped: samples that could not be used, by reason.
        filtered: samples that a filter excluded, by filter.
    """

    samples: int = 0
    seconds: int = 0
    silent: int = 0
    words: int = 0
    questions: int = 0
    cut: int = 0
    dropped_turns: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)

    def add(self, built: BuiltRecord, words: list[int]) -> None:
        """Count a record with this number of `words` in each second."""
        self.samples += 1
        self.seconds += len(words)
        self.silent += words.count(0)
        self.words += sum(words)
        self.questions += sum(bool(turn.question) for turn in built.record.turns)
        self.cut += is_cut(built.record)
        self.dropped_turns += built.dropped_turns

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values for `from_dict`."""
        return {**vars(self), "skipped": dict(self.skipped), "filtered": dict(self.filtered)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        counters = {name: Counter(values[name]) for name in ("skipped", "filtered")}
        return cls(**{**values, **counters})

    def lines(self) -> list[str]:
        """Return the counts as lines of text."""
        share = f" ({self.silent / self.seconds:.0%})" if self.seconds else ""
        lines = [
            f"samples         {self.samples:,}",
            f"video           {timedelta(seconds=self.seconds)}",
            f"words           {self.words:,}",
            f"silent seconds  {self.silent:,}{share}",
            f"questions       {self.questions:,}",
            f"cut short       {self.cut:,}",
        ]
        if self.dropped_turns:
            lines.append(f"turns dropped   {self.dropped_turns:,}")
        for name, counter in (("skipped", self.skipped), ("filtered out", self.filtered)):
            lines.append(f"{name:15} {sum(counter.values()):,}")
            lines += [f"  {count:,} × {reason}" for reason, count in counter.most_common()]
        return lines


# Samples between two checkpoints, a fraction of a second of work.
CHECKPOINT_EVERY = 1000

Report = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DatasetConversion:
    """What to convert.

    Attributes:
        sources: the samples.
        out: the record file to write.
        videos: folder of relative video paths.
        filters: which samples are converted.
        pixels: counts the vision tokens of each second; None does not count.
        dataset_class: StreamingVLM's ``LMMDataset``, to read the samples; None for the built-in reader.
    """

    sources: Sequence[SampleSource]
    out: Path
    videos: Path
    filters: Filters = field(default_factory=Filters)
    pixels: PixelConfig | None = None
    dataset_class: Any = None

    @property
    def inputs(self) -> list[Path]:
        """The input files."""
        return [path for source in self.sources for path in source.files]

    def check(self) -> None:
        """Check the filters and the output.

        Raises:
            SvmError: a filter is out of range, the output is one of the inputs, or it exists and holds no records.
        """
        self.filters.check()
        if any(_same_file(self.out, path) for path in self.inputs):
            raise SvmError(f"{self.out} is an input of this conversion; choose another --out.")
        if self.out.is_file() and not may_be_records(self.out):
            raise SvmError(f"{self.out} exists and holds no records; choose another --out.")

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the output, as JSON values."""
        return {
            "inputs": [_stamp(path) for path in self.inputs],
            "videos": str(self.videos.absolute()),
            "filters": self.filters.to_dict(),
            "pixels": self.pixels and self.pixels.to_dict(),
            "via": "lmm" if self.dataset_class else "own",
        }


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()


def _stamp(path: Path) -> list[str | int]:
    try:
        state = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), state.st_size, state.st_mtime_ns]


def convert_dataset(
    conversion: DatasetConversion,
    clips: ClipCache,
    resume: bool = False,
    report: Report = lambda _: None,
    progress: Progress = lambda *_: None,
    checkpoint_every: int = CHECKPOINT_EVERY,
) -> ConversionSummary:
    """Write the records of `conversion` and return counts.

    Args:
        conversion: what to convert.
        clips: metadata of clips.
        resume: continue an interrupted run of the same conversion; the result is identical, byte for byte. A finished
            output is left as it is.
        report: called with ``file:line: problem`` for each sample, or part of one, that is skipped.
        progress: called with the number of samples read and their total.
        checkpoint_every: samples between two checkpoints.

    Raises:
        SvmError: an input cannot be read, the output is an input or cannot be written, or another conversion was
            interrupted there.
    """
    conversion.check()
    filters = conversion.filters
    numbers = filters.numbers(sum(len(source) for source in conversion.sources))
    with ResumableFile(conversion.out, conversion.identity(), resume) as out:
        done, summary = _restored(out)
        if out.is_finished:
            report(f"{conversion.out} is already finished; nothing was converted. Omit --resume to convert again.")
            return summary
        reader = LMMReader(conversion.dataset_class, conversion.videos) if conversion.dataset_class else None
        builder = RecordBuilder(clips, conversion.videos, conversion.out.parent, conversion.pixels, reader)
        for candidate in _readable(_candidates(conversion.sources, numbers[done:])):
            if summary.samples == filters.max_samples:
                break
            if done % checkpoint_every == 0:
                out.checkpoint({"done": done, "summary": summary.to_dict()})
                progress(done, len(numbers))
            out.write(_convert_sample(candidate, builder, filters, summary, report))
            done += 1
        progress(done, len(numbers))
        out.finish({"done": done, "summary": summary.to_dict()})
    return summary


def _restored(out: ResumableFile) -> tuple[int, ConversionSummary]:
    if out.progress is None:
        return 0, ConversionSummary()
    return out.progress["done"], ConversionSummary.from_dict(out.progress["summary"])


def _candidates(sources: Sequence[SampleSource], numbers: Offsets) -> Iterator[Candidate]:
    """Yield the samples `numbers`, counted through all `sources`."""
    begin = 0
    for source in sources:
        low, high = np.searchsorted(numbers, [begin, begin + len(source)])
        for at in range(low, high, CHECKPOINT_EVERY):
            yield from source.candidates(numbers[at : min(at + CHECKPOINT_EVERY, high)] - begin)
        begin += len(source)


def _readable(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """Yield `candidates`, also those that cannot be read.

    Raises:
        SvmError: the first `MOST_UNREADABLE` are such.
    """
    unreadable: int | None = 0
    for candidate in candidates:
        if not isinstance(candidate.annotation, BadSampleError):
            unreadable = None
        elif unreadable is not None:
            unreadable += 1
            if unreadable > MOST_UNREADABLE:
                raise SvmError(
                    f"{candidate.where}: {candidate.annotation}, as in the {MOST_UNREADABLE:,} samples before it; "
                    "give annotations of StreamingVLM or LiveCC."
                )
        yield candidate


def _convert_sample(
    candidate: Candidate, builder: RecordBuilder, filters: Filters, summary: ConversionSummary, report: Report
) -> bytes:
    """Return the line of the record, empty if the sample is skipped or filtered out, and count it."""
    try:
        annotation = candidate.annotation
        if isinstance(annotation, BadSampleError):
            raise annotation
        reason = filters.reason_to_skip(annotation)
        if reason is None:
            built = builder.build(candidate, annotation)
            built.record.check()
            words = [len(turn.commentary.split()) for turn in built.record.turns]
            reason = _too_quiet(built.record, sum(words), filters.min_words)
        if reason is not None:
            summary.filtered[reason] += 1
            return b""
        line = built.record.to_line()
    except BadSampleError as error:
        summary.skipped[error.reason] += 1
        report(f"{candidate.where}: {error}")
        return b""
    for note in (*candidate.notes, *_losses(candidate.where, annotation, built, sum(words))):
        report(note)
    summary.add(built, words)
    return line


def _losses(where: str, annotation: Annotation, built: BuiltRecord, words: int) -> Iterator[str]:
    """Yield a line for each part of the sample that is not in its record."""
    record = built.record
    if built.dropped_turns:
        yield (
            f"{where}: dropped {built.dropped_turns} turns of LMMDataset after the record's end at "
            f"{record.video_end:g} s"
        )
    if annotation.end is None and len(annotation.words) > words:
        yield f"{where}: dropped {len(annotation.words) - words} words after the end of {record.video}"
    if is_cut(record):
        yield f"{where}: cut at {record.turns[-1].end:g} s, where {record.video} or its frame limit ends"


def _too_quiet(record: StreamingRecord, words: int, min_words: int) -> str | None:
    if words >= min_words:
        return None
    if not words and not any(turn.answer for turn in record.turns):
        raise BadSampleError("no words", f"there are no words from {record.video_start:g} to {record.video_end:g} s")
    return f"fewer than {min_words} words"
