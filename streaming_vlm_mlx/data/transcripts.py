"""Transcripts from WebVTT, SRT and JSON files.

One tolerant reader handles WebVTT and SRT and keeps the inline word times of captions. The libraries for these formats
reject a whole file for one bad cue and drop inline times.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.data.json_fields import BadSampleError, is_seconds, parse_json
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import LONGEST, read_file

Word = tuple[float, float, str]

_TIME = r"((?:\d{1,6}:)?\d{1,2}:\d{1,2}[.,]\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_INLINE = re.compile(rf"<{_TIME}>")
# A character number that is none, and that Python may refuse to read.
_LONG_NUMBER = re.compile(r"&#(?:\d{8,}|[xX][0-9a-fA-F]{7,});?")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


@dataclass(frozen=True, slots=True)
class TimedText:
    """A cue.

    Attributes:
        line: line number of its times, from 1.
        start: seconds.
        end: seconds; before `start` in a broken file.
        pieces: start, end and plain text of each part with its own times; usually one.
    """

    line: int
    start: float
    end: float
    pieces: tuple[tuple[float, float, str], ...]


def read_cues(text: str) -> Iterator[TimedText | int]:
    """Yield the cues of `text` in order, or the line number where the times of a cue are invalid."""
    lines = re.split(r"\r\n|\r|\n", text)
    rolling = _INLINE.search(text) is not None
    shown = ""
    for number, line in enumerate(lines, 1):
        if "-->" not in line:
            continue
        timing = _TIMING.match(line)
        if timing is None:
            yield number
            continue
        spoken = [line for line in _text_lines(lines, number) if _plain(line).strip()]
        if rolling and spoken and _plain(spoken[0]).strip() == shown:
            # Roll-up captions show each line twice; only the first time has word times.
            spoken = spoken[1:]
        if spoken:
            shown = _plain(spoken[-1]).strip()
        start, end = (_seconds(time) for time in timing.groups())
        yield TimedText(number, start, end, tuple(_pieces(" ".join(spoken), start, end)))


def _text_lines(lines: list[str], at: int) -> list[str]:
    """Return the lines from `at` to the next empty line, or to the next cue if the empty line is missing."""
    spoken: list[str] = []
    for number in range(at, len(lines)):
        line = lines[number]
        if not line:
            break
        if "-->" in line:
            if spoken and spoken[-1].strip().isdigit():
                spoken.pop()
            break
        spoken.append(line)
    return spoken


def _pieces(text: str, start: float, end: float) -> Iterator[tuple[float, float, str]]:
    first, *rest = _INLINE.split(text)
    times = [start, *(_seconds(time) for time in rest[::2]), end]
    for begin, until, piece in zip(times, times[1:], [first, *rest[1::2]], strict=False):
        plain = _plain(piece)
        if plain.strip():
            yield begin, until, plain


def _plain(text: str) -> str:
    return html.unescape(_LONG_NUMBER.sub("\ufffd", _TAG.sub("", text)))


def _seconds(time: str) -> float:
    *hours, minutes, secs = time.replace(",", ".").split(":")
    whole, fraction = secs.split(".")
    total = (int(hours[0]) if hours else 0) * 3600 + int(minutes) * 60 + int(whole)
    return total + int(fraction.ljust(3, "0")) / 1000


# The largest transcripts: those of ten hours, with the times of each word, have a fifth of it.
LARGEST_CUES, LARGEST_JSON = 8 << 20, 32 << 20
# The most words, and the most parts of a JSON file: two days of speech.
MOST_WORDS = 500_000
# Messages on parts that were skipped.
MOST_MESSAGES = 1000
SUFFIXES = (".vtt", ".srt", ".json")


@dataclass(frozen=True)
class Transcript:
    """The words of a clip.

    Attributes:
        words: start, end and text of each word in spoken order; ends never decrease.
        skipped: ``file:line: problem`` for each part that was skipped.
    """

    words: tuple[Word, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """Text with start and end in seconds, and its position in the file."""

    where: str
    start: float
    end: float
    text: str


def read_transcript(path: Path) -> Transcript:
    """Read the transcript `path` with suffix ``.vtt``, ``.srt`` or ``.json``.

    JSON may be Whisper's or WhisperX's (``segments``, with ``words`` or without), whisper.cpp's (``transcription``),
    a session of this program (``seconds``), the transcript of a simulated match (``words``), or a list of segments or
    of ``[start, end, word]``. Words without times divide the time of their segment evenly.

    Raises:
        SvmError: the file is missing, is of another kind, has no words, or has too many for the memory.
    """
    content = read_file(path, LARGEST_JSON if path.suffix == ".json" else LARGEST_CUES)
    skipped: list[str] = []
    parts = list(_json_parts(path, content, skipped) if path.suffix == ".json" else _cue_parts(path, content, skipped))
    spread = (word for part in sorted(parts, key=lambda part: part.start) for word in _spread(part))
    words = tuple(islice(_in_order(spread), MOST_WORDS + 1))
    if len(words) > MOST_WORDS:
        raise _too_many(path)
    if not words:
        why = f" ({skipped[0]})" if skipped else ""
        raise SvmError(f"{path} holds no timed words{why}; give a WebVTT, SRT or Whisper-style JSON transcript.")
    return Transcript(words, tuple(skipped))


def _too_many(path: Path) -> SvmError:
    return SvmError(f"{path} holds more than {MOST_WORDS:,} words or segments; cut it into shorter transcripts.")


def _skip(skipped: list[str], message: str) -> None:
    if len(skipped) < MOST_MESSAGES:
        skipped.append(message)


def _spread(part: _Part) -> Iterator[Word]:
    # Of a text with too many words not even all are separated.
    words = part.text.split(maxsplit=MOST_WORDS)
    step = (part.end - part.start) / max(len(words), 1)
    for number, word in enumerate(words, 1):
        yield part.start + (number - 1) * step, part.start + number * step, word


def _in_order(words: Iterable[Word]) -> Iterator[Word]:
    """Delay the end of a word to the end of any earlier word that overlaps it."""
    latest = 0.0
    for start, end, word in words:
        latest = max(latest, end)
        yield start, latest, word


def _cue_parts(path: Path, content: bytes, skipped: list[str]) -> Iterator[_Part]:
    for cue in read_cues(_decoded(content)):
        if isinstance(cue, int):
            _skip(skipped, f"{path}:{cue}: invalid times")
            continue
        for start, end, text in cue.pieces:
            if start > end:
                _skip(skipped, f"{path}:{cue.line}: reversed times, {start:g} to {end:g} s")
            else:
                yield _Part(f"{path}:{cue.line}", start, end, text)


def _decoded(content: bytes) -> str:
    """Decode UTF-16 with a byte order mark, UTF-8, or else the Windows code page of old SRT files."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _json_parts(path: Path, content: bytes, skipped: list[str]) -> Iterator[_Part]:
    try:
        segments = _segments(parse_json(content))
    except BadSampleError as error:
        raise SvmError(f"{path}: {error}. Give a WebVTT, SRT or Whisper-style JSON transcript.") from error
    texts = ((number, text) for number, segment in enumerate(segments, 1) for text in _timed_texts(segment))
    for count, (number, (start, end, text)) in enumerate(texts, 1):
        if count > MOST_WORDS:
            raise _too_many(path)
        where = f"{path}: segment {number}"
        try:
            yield _part(where, start, end, text)
        except BadSampleError as error:
            _skip(skipped, f"{where}: {error}")


def _segments(values: Any) -> Sequence[Any]:
    if isinstance(values, dict):
        for key in ("segments", "seconds", "transcription", "words"):
            if isinstance(values.get(key), list):
                return values[key]  # type: ignore[no-any-return]
    if isinstance(values, list):
        return values
    raise BadSampleError("not a transcript", "it has no 'segments', 'seconds', 'transcription' or 'words'")


def _timed_texts(segment: Any) -> Iterator[tuple[object, object, object]]:
    """Yield start, end and text, not validated, of each part of `segment` with its own times."""
    match segment:
        case {"words": [_, *_] as words}:
            yield from _timed_words(words, segment.get("start"), segment.get("end"))
        case {"offsets": {"from": int(start), "to": int(end)}, "text": text} if max(start, end) < LONGEST:
            # whisper.cpp uses milliseconds.
            yield start / 1000, end / 1000, text
        case (
            {"start": start, "end": end, "text": text} | {"start": start, "end": end, "word": text} | [start, end, text]
        ):
            yield start, end, text
        case _:
            yield None, None, segment


def _timed_words(words: list[Any], start: object, end: object) -> Iterator[tuple[object, object, object]]:
    """Yield the words of a segment; a word without times (WhisperX) fills the gap between its neighbors."""
    words = [word if isinstance(word, dict) else {} for word in words]
    # The start of the next word that has one, for each word, from the last to the first.
    following = [end]
    for word in reversed(words[1:]):
        following.append(word.get("start", following[-1]))
    for word in words:
        begins = word.get("start", start)
        start = word.get("end", following[-1])
        following.pop()
        yield begins, start, word.get("word", word.get("text"))


def _part(where: str, start: object, end: object, text: object) -> _Part:
    if not (is_seconds(start) and is_seconds(end) and isinstance(text, str)):
        raise BadSampleError("malformed segment", f"{text!r:.40} from {start!r:.20} to {end!r:.20}")
    if start > end:
        raise BadSampleError("reversed times", f"{start:g} to {end:g} s")
    return _Part(where, float(start), float(end), text)
