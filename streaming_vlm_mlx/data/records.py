"""`StreamingRecord`: one clip, or a stretch of it, with what is said in each second; one JSON line each."""

import json
import zipfile
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.data.jsonl import (
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

VERSION = 1


class NewerRecordError(SvmError):
    """A record written by a later version of this program."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One second of a conversation.

    Attributes:
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        user_text: what stands before the video, ``Time=1.0-2.0s `` and a question.
        assistant_text: the answer to the question, a line feed, the commentary and `` ...``.
        question: the viewer's question, as it stands in `user_text`; mostly empty.
        answer: its answer, as it stands in `assistant_text`.
        vision_tokens: how many ``<|video_pad|>`` stand for this second's frames, if that was counted.
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
        """What is said in this second, without the answer and the marks around it; empty when it is silent."""
        return self.assistant_text[len(self.answer) :].removesuffix(" ...").strip()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, without those that are empty."""
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
            BadSampleError: a field is missing or of another type.
        """
        if not isinstance(values, dict):
            raise BadSampleError("malformed turn", f"{values!r:.40} is no object")
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
    """A stretch of a clip and what is said in it, second by second.

    Attributes:
        video: path of the clip, absolute or relative to the folder of the record's file.
        video_start: where the stretch starts, in seconds from the clip's beginning.
        video_end: where it ends.
        turns: the seconds, in order.
        previous: what was said before the stretch.
        query: what the viewer asked for.
        fps: frames sampled a second, a whole number.
        width: of the clip's upright picture in pixels, 0 when it was not looked up.
        height: of the clip's upright picture in pixels, 0 when it was not looked up.
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

    def to_line(self) -> bytes:
        """Return the record as one line of JSON in UTF-8, line feed included.

        Raises:
            BadSampleError: a text holds half a surrogate pair, which no encoding can write.
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
        """Read what `to_line` wrote; keys that are not fields are ignored.

        Raises:
            BadSampleError: the line is not JSON, a key is missing, a value is of another type, times are reversed.
            NewerRecordError: a later version of this program wrote it.
        """
        values = parse_json(line)
        if not isinstance(values, dict):
            raise BadSampleError("not a record", f"a {type(values).__name__} where an object should be")
        version = values.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise BadSampleError("not a record", f"version is {version!r}")
        if version > VERSION:
            raise NewerRecordError(f"record of version {version}, newer than {VERSION}; update svm-tui to read it.")
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
        """Refuse times that run backwards and a sampling rate that is no rate.

        Raises:
            BadSampleError: names the values.
        """
        if not self.video_start < self.video_end:
            raise BadSampleError("reversed times", f"{self.video_start} to {self.video_end}")
        for turn in self.turns:
            if not turn.start < turn.end:
                raise BadSampleError("reversed times", f"{turn.start} to {turn.end}")
        if self.fps < 1 or not self.fps.is_integer():
            raise BadSampleError("malformed value", f"fps is {self.fps:g}; a second takes a whole number of frames")


@dataclass(frozen=True)
class RecordFile:
    """Records by number. The file was read through once, so that a bad line shows before a run, not hours into it.

    Attributes:
        path: the JSONL file.
        offsets: int64 [records], the byte where each good record starts.
        turns: int64 [records], how many seconds each has.
        skipped: for each line that was passed over, ``file:line: what is wrong``; the first hundred.
        skipped_count: how many there were.
    """

    path: Path
    offsets: Offsets
    turns: npt.NDArray[np.int64]
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open `path` with the index beside it, or read it through and leave an index for the next time.

        Raises:
            SvmError: the file is absent, holds no record, or one that a later version wrote.
        """
        index = path.with_name(path.name + ".index.npz")
        records = cls._load(path, index)
        if records is None:
            records = cls._scan(path)
            records._save(index)
        if not len(records):
            first = f" ({records.skipped[0]})" if records.skipped else ""
            raise SvmError(f"{path} holds no record that can be used{first}. Make one with 'svm-tui convert'.")
        return records

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, number: int) -> StreamingRecord:
        """Read record `number`, from 0 up; its video's path is joined to the file's folder.

        Raises:
            IndexError: there are not so many.
            SvmError: the file changed under our hands.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        (line,) = read_lines(self.path, self.offsets[number : number + 1])
        try:
            record = StreamingRecord.from_line(line)
        except SvmError as error:
            raise SvmError(f"{self.path} changed while it was in use: {error}. Start again.") from error
        return replace(record, video=str(self.path.parent / record.video))

    @classmethod
    def _scan(cls, path: Path) -> Self:
        starts, numbers = line_starts(path)
        offsets, turns = array("q"), array("q")
        skipped: list[str] = []
        count = 0
        for offset, number, line in zip(starts, numbers, read_lines(path, starts), strict=True):
            try:
                turns.append(len(StreamingRecord.from_line(line).turns))
                offsets.append(offset)
            except NewerRecordError as error:
                raise SvmError(f"{path}:{number}: {error}") from error
            except BadSampleError as error:
                count += 1
                if len(skipped) < 100:
                    skipped.append(f"{path}:{number}: {error}")
        return cls(path, np.array(offsets, np.int64), np.array(turns, np.int64), tuple(skipped), count)

    @classmethod
    def _load(cls, path: Path, index: Path) -> Self | None:
        """Return what `index` says, or None when it is absent, broken or of another state of the file."""
        try:
            with np.load(index, allow_pickle=False) as saved:
                if saved["stamp"].tolist() != _stamp(path):
                    return None
                count = int(saved["skipped_count"])
                return cls(path, saved["offsets"], saved["turns"], tuple(saved["skipped"].tolist()), count)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def _save(self, index: Path) -> None:
        try:
            with replacing(index) as part, part.open("wb") as file:
                np.savez(
                    file,
                    stamp=np.array(_stamp(self.path)),
                    offsets=self.offsets,
                    turns=self.turns,
                    skipped=np.array(self.skipped, np.str_),
                    skipped_count=np.array(self.skipped_count),
                )
        except SvmError:
            return  # a folder that cannot be written costs time at the next start, no more


def _stamp(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
