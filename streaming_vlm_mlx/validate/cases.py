"""What a model is validated on, one stretch of video at a time: simulated matches, or the records of any file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.data.record import StreamingRecord
from streaming_vlm_mlx.data.record_file import RecordFile
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.matches.seeds import TEST_SEEDS
from streaming_vlm_mlx.matches.tennis.questions import questions
from streaming_vlm_mlx.matches.truth import Question, read_truth
from streaming_vlm_mlx.validate.reference import Reference

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
