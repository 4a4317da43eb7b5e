"""`StreamingRecord`: one clip, or a stretch of it, with what is said in each second; one JSON line each."""

import json
from dataclasses import dataclass
from typing import Any, Self

from streaming_vlm_mlx.data.fields import BadSampleError, parse_json, seconds, text, whole
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
