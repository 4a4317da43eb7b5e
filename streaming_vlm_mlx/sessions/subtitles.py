"""Commentary as subtitles: a cue for each sentence or, for what is to be trained on, for each second.

A question is a NOTE in WebVTT and stands in brackets in plain text; SRT has no comments and leaves it out. So players
never draw a question over the picture, and programs that score the cues never take it for commentary.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json, read_file
from streaming_vlm_mlx.plain_text import harmless
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.sentences import merge, spread
from streaming_vlm_mlx.stream.events import GenerationResult

_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# SRT has no escapes, and players read HTML tags and ASS overrides ("{\\an8}") in it: similar characters replace them.
_SRT_ESCAPES = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


@dataclass(frozen=True, slots=True)
class Cue:
    """The text to show from `start` to `end`, in milliseconds, and the viewer's `question`."""

    start: int
    end: int
    text: str
    question: str


def cues(seconds: Iterable[GenerationResult], per_second: bool = False) -> Iterator[Cue]:
    """Yield a cue for each sentence of `seconds`, which are in order, and for each question that got no words.

    With `per_second`, yield a cue for each second that has text or a question. Cues have no empty lines and no control
    characters.
    """
    spoken = [(second, harmless(second.text), " ".join(harmless(second.query).split())) for second in seconds]
    if per_second:
        yield from (_cue(second.start, second.end, text, asked) for second, text, asked in spoken if text or asked)
        return
    words = [
        word
        for number, (second, text, asked) in enumerate(spoken)
        for word in spread(second.start, second.end, text, number, bool(asked))
    ]
    asked_at = {number: asked for number, (_, _, asked) in enumerate(spoken) if asked}
    found = []
    for sentence in merge(words, max((second.end for second, *_ in spoken), default=0.0)):
        first = sentence.words[0]
        asked = asked_at.pop(first.second, "") if first.leads else ""
        found.append(_cue(sentence.start, sentence.end, sentence.text, asked))
    found += [_cue(spoken[number][0].start, spoken[number][0].end, "", asked) for number, asked in asked_at.items()]
    yield from sorted(found, key=lambda cue: cue.start)


def _cue(start: float, end: float, text: str, question: str) -> Cue:
    first = max(round(start * 1000), 0)
    return Cue(first, max(round(end * 1000), first + 1), text, question)


def webvtt(seconds: Iterable[GenerationResult], mark: str = "", per_second: bool = False) -> str:
    """Return `seconds` as a WebVTT file (W3C WebVTT 1), with `mark` as a comment at its head; `cues` has the rest."""
    blocks = ["WEBVTT", *([f"NOTE {mark}"] if mark else [])]
    for cue in cues(seconds, per_second):
        if cue.question:
            blocks.append(f"NOTE {clock(cue.start)} asked: {cue.question.translate(_VTT_ESCAPES)}")
        if cue.text:
            blocks.append(f"{clock(cue.start)} --> {clock(cue.end)}\n{cue.text.translate(_VTT_ESCAPES)}")
    return "\n\n".join(blocks) + "\n"


def srt(seconds: Iterable[GenerationResult], mark: str = "", per_second: bool = False) -> str:
    """Return `seconds` as a SubRip file; `cues` says what `per_second` does.

    SubRip has no comments: `mark` follows the times of the first cue, where readers expect coordinates or nothing.
    """
    spoken = (cue for cue in cues(seconds, per_second) if cue.text)
    blocks = (
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}{f'  {mark}' if mark and number == 1 else ''}\n"
        f"{cue.text.translate(_SRT_ESCAPES)}\n"
        for number, cue in enumerate(spoken, 1)
    )
    return "\n".join(blocks)


def transcript(seconds: Iterable[GenerationResult], mark: str = "") -> str:
    """Return `seconds` as plain text, a line each: its time, the question in brackets, the commentary; `mark` first."""
    return (f"# {mark}\n" if mark else "") + "".join(
        "  ".join(
            part for part in (clock(cue.start)[:-4], _bracketed(cue.question), " ".join(cue.text.split())) if part
        )
        + "\n"
        for cue in cues(seconds, per_second=True)
    )


def clock(milliseconds: int, point: str = ".") -> str:
    """Return a time as HH:MM:SS.mmm, with more digits for the hours where needed."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def _bracketed(question: str) -> str:
    return f"[{question}]" if question else ""


# The kind of a JSON file that `svm-tui report` wrote.
REPORT = "svm-tui report"
_MARK = "svm-tui: commentary on "
_MARKED = re.compile(rf"^(?:NOTE |# |\S+ --> \S+  )?{_MARK}(.*)$", re.MULTILINE)
# Bytes at the head of a file that hold the mark.
_HEAD = 8192


def export_mark(clip: str) -> str:
    """Return the line by which an export of a session on `clip` is recognised."""
    return _MARK + clip_name(clip)


def exported_clip(path: Path) -> str | None:
    """Return the name of the clip that the export at `path` is a commentary on; None if `path` is no export."""
    try:
        match path.suffix.lower():
            case ".json":
                return _clip_of_session(read_file(path))
            case ".mp4":
                # Only this format needs PyAV, which takes 0.2 s to import.
                from streaming_vlm_mlx.video.source import read_comment

                head = read_comment(path)
            case _:
                with path.open("rb") as file:
                    head = file.read(_HEAD).decode("utf-8", "replace")
    except (OSError, SvmError):
        return None
    found = _MARKED.search(head.replace("\r\n", "\n"))
    return found[1] if found else None


def check_replaceable(path: Path, clip: str, force: bool = False) -> None:
    """Refuse to replace a file that is not an earlier export of `clip`, unless `force` is set or the file is empty.

    Raises:
        SvmError: names the file, and how to replace it anyway.
    """
    if force or not path.is_file() or not path.stat().st_size:
        return
    if exported_clip(path) != clip_name(clip):
        raise SvmError(
            f"{path} exists and is not an earlier export of {clip_name(clip)}; choose another name, or replace it "
            "with --force."
        )


def _clip_of_session(content: bytes) -> str | None:
    try:
        values = parse_json(content.decode("utf-8"))
    except ValueError:
        return None
    match values:
        case {"version": int(), "clip": str(clip), "seconds": list()}:
            return clip_name(clip)
        case {"kind": kind, "title": str(title)} if kind == REPORT:
            return clip_name(title)
    return None


def clip_name(clip: str) -> str:
    """Return the name of a clip as one line; an address loses its user and its query, which may hold a password."""
    if "://" in clip:
        try:
            address = urlsplit(clip)
            name = Path(address.path).name or address.hostname or address.scheme
        except ValueError:
            # Half a pair of brackets, in which an address of IPv6 stands.
            name = clip.partition("://")[0]
    else:
        name = Path(clip).name or clip
    return " ".join(harmless(name).split()).replace("-->", "→")


Render = Callable[[SessionRecord, bool], str]

FORMATS: dict[str, Render] = {
    ".vtt": lambda record, per_second: webvtt(record.seconds, export_mark(record.clip), per_second),
    ".srt": lambda record, per_second: srt(record.seconds, export_mark(record.clip), per_second),
    ".json": lambda record, _: record.to_json(),
    ".txt": lambda record, _: transcript(record.seconds, export_mark(record.clip)),
}


def find_format(path: Path, more: Sequence[str] = ()) -> Render:
    """Return the renderer of the format that the ending of `path` names; call it before a long run, not after.

    Args:
        path: of the file.
        more: endings of formats that the caller writes itself, for the error.

    Raises:
        SvmError: no format has that ending.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise SvmError(f"{path} has no known format; end its name with one of {', '.join([*FORMATS, *more])}.")
    return found


def write(path: Path, record: SessionRecord, per_second: bool = False) -> None:
    """Write `record` to `path`, in the format of its ending; after an error the old file is intact.

    Subtitles have a cue for each sentence or, with `per_second`, for each second.

    Raises:
        SvmError: the ending of `path` is unknown, or the file cannot be written.
    """
    write_text(path, find_format(path)(record, per_second))
