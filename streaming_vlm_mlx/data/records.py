"""Training records: a stretch of a clip and its commentary, second by second, one JSON line each."""

import json
import os
from array import array
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.config import MOST_FPS
from streaming_vlm_mlx.data.json_fields import (
    MOST_UNREADABLE,
    BadSampleError,
    Offsets,
    line_starts,
    parse_json,
    read_lines,
    seconds,
    text,
    whole,
)
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import path_below, path_in_file, videos_folder

VERSION = 1
# The most characters of a record's texts: of fifteen hours of commentary, besides the markup of each of its seconds.
_LONGEST_TEXTS, _MARKUP = 1_000_000, 32
# Bytes at the head of a file that tell whether it holds records.
_HEAD = 64


class NewerRecordError(SvmError):
    """The record was written by a later version of this program."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One second of a conversation.

    Attributes:
        start: seconds from the start of the clip.
        end: seconds from the start of the clip.
        user_text: the text before the video, ``Time=1.0-2.0s `` and the question.
        assistant_text: the answer to the question, a line feed, the commentary and `` ...``.
        question: the viewer's question as it appears in `user_text`; usually empty.
        answer: its answer as it appears in `assistant_text`.
        vision_tokens: number of ``<|video_pad|>`` tokens for the frames of this second; None if not counted.
    """

    start: float
    end: float
    user_text: str
    assistant_text: str
    question: str = ""
    answer: str = ""
    vision_tokens: int | None = None

    @property
    def commentary(self) -> str:
        """The commentary of this second without the answer and the markup; empty if the second is silent."""
        return self.assistant_text[len(self.answer) :].removesuffix(" ...").strip()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are not empty."""
        values: dict[str, Any] = {
            "start": self.start,
            "end": self.end,
            "user_text": self.user_text,
            "assistant_text": self.assistant_text,
        }
        if self.question or self.answer:
            values |= {"question": self.question, "answer": self.answer}
        if self.vision_tokens is not None:
            values["vision_tokens"] = self.vision_tokens
        return values

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """Build a turn from its fields.

        Raises:
            BadSampleError: a field is missing or has the wrong type.
        """
        if not isinstance(values, dict):
            raise BadSampleError("malformed turn", f"{values!r:.40} is not an object")
        tokens = values.get("vision_tokens")
        if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0):
            raise BadSampleError("malformed turn", f"vision_tokens is {tokens!r}")
        return cls(
            seconds(values, "start"),
            seconds(values, "end"),
            text(values, "user_text"),
            text(values, "assistant_text"),
            text(values, "question", ""),
            text(values, "answer", ""),
            tokens,
        )


@dataclass(frozen=True, slots=True)
class StreamingRecord:
    """A stretch of a clip and its commentary, second by second.

    Attributes:
        video: path of the clip, absolute or relative to the folder of the record file.
        video_start: start of the stretch, in seconds from the start of the clip.
        video_end: end of the stretch, in seconds from the start of the clip.
        turns: the seconds, in order.
        previous: the commentary before the stretch.
        query: the viewer's request.
        fps: sampled frames per second, a whole number.
        width: width of the upright picture in pixels, 0 if unknown.
        height: height of the upright picture in pixels, 0 if unknown.
        source: ``file:line`` that the record was read from, for messages; empty if it was not read from a file.
    """

    video: str
    video_start: float
    video_end: float
    turns: tuple[Turn, ...]
    previous: str = ""
    query: str = ""
    fps: float = 2.0
    width: int = 0
    height: int = 0
    source: str = field(default="", compare=False)

    def to_line(self) -> bytes:
        """Return the record as one line of JSON in UTF-8, with its line feed; `source` is not written.

        Raises:
            BadSampleError: a text contains half a surrogate pair, which UTF-8 cannot encode.
        """
        values = {
            "version": VERSION,
            "video": self.video,
            "video_start": self.video_start,
            "video_end": self.video_end,
            "width": self.width,
            "height": self.height,
            "fps": self.fps,
            "query": self.query,
            "previous": self.previous,
            "turns": [turn.to_dict() for turn in self.turns],
        }
        try:
            return (json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
        except UnicodeEncodeError as error:
            raise BadSampleError("broken text", f"half a surrogate pair, {error.object[error.start]!r}") from error

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Parse a line written by `to_line`; unknown keys are ignored.

        Raises:
            BadSampleError: the line is not JSON, a key is missing, a value has the wrong type, or times are reversed.
            NewerRecordError: a later version of this program wrote the line.
        """
        values = parse_json(line)
        if not isinstance(values, dict):
            raise BadSampleError("not a record", f"a {type(values).__name__}, not an object")
        version = values.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise BadSampleError("not a record", f"version is {version!r}")
        if version > VERSION:
            raise NewerRecordError(f"the record has version {version}, newer than {VERSION}; update svm-tui.")
        turns = values.get("turns")
        if not isinstance(turns, list) or not turns:
            raise BadSampleError("no turns")
        record = cls(
            text(values, "video"),
            seconds(values, "video_start"),
            seconds(values, "video_end"),
            tuple(Turn.from_dict(turn) for turn in turns),
            text(values, "previous", ""),
            text(values, "query", ""),
            seconds(values, "fps", 2.0),
            whole(values, "width"),
            whole(values, "height"),
        )
        record.check()
        return record

    def check(self) -> None:
        """Check the times, the frame rate and the length of the texts.

        Raises:
            BadSampleError: times are reversed, `fps` is not a whole number from 1 up, or the texts are too long.
        """
        turns = sum(len(turn.user_text) + len(turn.assistant_text) - _MARKUP for turn in self.turns)
        if len(self.previous) + len(self.query) + turns > _LONGEST_TEXTS:
            raise BadSampleError("text too long", f"it has more than {_LONGEST_TEXTS:,} characters")
        if not self.video_start < self.video_end:
            raise BadSampleError("reversed times", f"{self.video_start} to {self.video_end}")
        for turn in self.turns:
            if not turn.start < turn.end:
                raise BadSampleError("reversed times", f"{turn.start} to {turn.end}")
        if not 1 <= self.fps <= MOST_FPS or not self.fps.is_integer():
            raise BadSampleError("malformed value", f"fps is {self.fps:g}; it must be a whole number, 1 to {MOST_FPS}")


@dataclass(frozen=True)
class RecordFile:
    """Random access to the records of a JSONL file.

    Opening reads the whole file once, so that bad lines are reported before a training run starts.

    Attributes:
        path: the JSONL file.
        offsets: int64 [records], byte offset of each valid record.
        lines: int64 [records], line number of each valid record, from 1.
        turns: int64 [records], seconds of each valid record.
        skipped: ``file:line: problem`` for each of the first hundred invalid lines.
        skipped_count: number of invalid lines.
        opens_videos: whether the videos are to be opened, so that they must be below the folder of `path`, or of
            ``DATASET_PATH``.
    """

    path: Path
    offsets: Offsets
    lines: Offsets
    turns: npt.NDArray[np.int64]
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0
    opens_videos: bool = True

    @classmethod
    def open(cls, path: Path, opens_videos: bool = True) -> Self:
        """Open `path`, using the index file beside it if it is up to date, and writing one otherwise.

        Raises:
            SvmError: the file is missing, has no valid record in its first lines, or has one that a later version
                wrote.
        """
        index = path.with_name(path.name + ".index.npz")
        records = cls._load(path, index)
        if records is None:
            records = cls._scan(path)
            records._save(index)
        if not len(records):
            first = f" ({records.skipped[0]})" if records.skipped else ""
            head = f" in its first {MOST_UNREADABLE:,} lines" if records.skipped_count == MOST_UNREADABLE else ""
            raise SvmError(f"{path} has no valid record{head}{first}. Create one with 'svm-tui convert'.")
        return replace(records, opens_videos=opens_videos)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, number: int) -> StreamingRecord:
        """Read record `number`, from 0; its `video` is joined to the folder of the file.

        Raises:
            IndexError: the file has fewer records.
            SvmError: the file changed after it was opened, or its video is a device or outside of the folder.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        (line,) = read_lines(self.path, self.offsets[number : number + 1])
        try:
            record = StreamingRecord.from_line(line)
        except SvmError as error:
            raise SvmError(f"{self.path} changed while it was in use: {error}. Start again.") from error
        source = f"{self.path}:{self.lines[number]}"
        try:
            folder = self.path.parent
            video = (
                path_below(folder, record.video, videos_folder(os.environ))
                if self.opens_videos
                else path_in_file(folder, record.video)
            )
        except SvmError as error:
            raise SvmError(f"{source} names {error}") from error
        return replace(record, video=video, source=source)

    @classmethod
    def _scan(cls, path: Path) -> Self:
        starts, numbers = line_starts(path)
        offsets, lines, turns = array("q"), array("q"), array("q")
        skipped: list[str] = []
        count = 0
        for offset, number, line in zip(starts, numbers, read_lines(path, starts), strict=True):
            try:
                turns.append(len(StreamingRecord.from_line(line).turns))
                offsets.append(offset)
                lines.append(number)
            except NewerRecordError as error:
                raise SvmError(f"{path}:{number}: {error}") from error
            except BadSampleError as error:
                count += 1
                if len(skipped) < 100:
                    skipped.append(f"{path}:{number}: {error}")
                if count == MOST_UNREADABLE and not offsets:
                    break
        found = [np.array(values, np.int64) for values in (offsets, lines, turns)]
        return cls(path, found[0], found[1], found[2], tuple(skipped), count)

    @classmethod
    def _load(cls, path: Path, index: Path) -> Self | None:
        """Load `index`; None if it is missing, damaged or older than the file."""
        try:
            with np.load(index, allow_pickle=False) as saved:
                if saved["stamp"].tolist() != _stamp(path):
                    return None
                arrays = saved["offsets"], saved["lines"], saved["turns"]
                return cls(path, *arrays, tuple(saved["skipped"].tolist()), int(saved["skipped_count"]))
        except Exception:  # noqa: BLE001 - one changed byte makes zipfile, zlib or NumPy raise anything
            return None

    def _save(self, index: Path) -> None:
        try:
            with replacing(index) as part, part.open("wb") as file:
                np.savez(
                    file,
                    stamp=np.array(_stamp(self.path)),
                    offsets=self.offsets,
                    lines=self.lines,
                    turns=self.turns,
                    skipped=np.array(self.skipped, np.str_),
                    skipped_count=np.array(self.skipped_count),
                )
        except SvmError:
            return  # without the index, the next start scans the file again


def may_be_records(path: Path) -> bool:
    """Return whether the file `path` is empty or begins with the version of a record, so that it may be replaced.

    Raises:
        SvmError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
    return not head or head.lstrip().startswith(b'{"version"')


def _stamp(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
