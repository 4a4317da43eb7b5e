"""A session into a file, in the format that the file's name asks for."""

from collections.abc import Callable
from pathlib import Path

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.export.session import SessionRecord
from streaming_vlm_mlx.export.subtitles import srt, transcript, webvtt

Render = Callable[[SessionRecord], str]

FORMATS: dict[str, Render] = {
    ".vtt": lambda record: webvtt(record.seconds),
    ".srt": lambda record: srt(record.seconds),
    ".json": SessionRecord.to_json,
    ".txt": lambda record: transcript(record.seconds),
}


def find_format(path: Path) -> Render:
    """Return what renders the format that the name of `path` ends with; ask before a long run, not after it.

    Raises:
        SvmError: the ending is none of the formats'.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise SvmError(f"{path} has no known format; let its name end with one of {', '.join(FORMATS)}.")
    return found


def write(path: Path, record: SessionRecord) -> None:
    """Replace `path` with `record`, atomically; whatever fails, the old file stays.

    Raises:
        SvmError: the ending of `path` is unknown, or it can not be written.
    """
    write_text(path, find_format(path)(record))
