"""The true transcript of a clip: named by the user, or found beside the clip."""

import os
from collections.abc import Iterator
from pathlib import Path

from streaming_vlm_mlx.data.transcripts import read_transcript
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.subtitles import exported_clip
from tui.player.transcript import Timed

RECORDS = ".jsonl"
# The last one is a simulated match's.
ENDINGS = (".vtt", ".srt", ".json", RECORDS, ".truth.json")

# Seconds by which a transcript may exceed its clip before it looks like that of another clip.
TAIL = 30.0


def find_truth(clip: str) -> Path | None:
    """Return the transcript beside `clip` that has its name; commentary that this program exported there is none."""
    if "://" in clip or not Path(clip).is_file():
        return None
    beside = (Path(clip).with_suffix(ending) for ending in ENDINGS)
    return next((path for path in beside if path.is_file() and exported_clip(path) is None), None)


def read_truth(path: Path, clip: str) -> tuple[Timed, ...]:
    """Return the words of `path`, a subtitle file, Whisper's JSON, a session, or records that know `clip`.

    Raises:
        SvmError: it cannot be read, or holds nothing that was said in the clip.
    """
    return tuple(_recorded_words(path, clip)) if path.suffix == RECORDS else read_transcript(path).words


def mismatch_warning(words: tuple[Timed, ...], path: Path, duration: float | None) -> str:
    """Return a warning if a transcript hardly belongs to a clip of `duration` seconds, else an empty string."""
    if not words:
        return f"{path.name} has no words for this clip."
    if duration is None or words[-1][0] <= duration + TAIL:
        return ""
    return f"{path.name} runs to {words[-1][1]:.0f} s, the clip to {duration:.0f} s; is it the truth of another clip?"


def _recorded_words(path: Path, clip: str) -> Iterator[Timed]:
    from streaming_vlm_mlx.data.records import RecordFile

    records = RecordFile.open(path, opens_videos=False)
    found = False
    for number in range(len(records)):
        record = records[number]
        if not _same(record.video, clip):
            continue
        found = True
        for turn in record.turns:
            words = turn.commentary.split()
            step = (turn.end - turn.start) / max(len(words), 1)
            yield from ((turn.start + i * step, turn.start + (i + 1) * step, word) for i, word in enumerate(words))
    if not found:
        raise SvmError(f"{path} has no record of {clip}; name its transcript with --truth.")


def _same(video: str, clip: str) -> bool:
    # A name with a NUL character is that of no file.
    return "\0" not in video and os.path.realpath(video) == os.path.realpath(clip)
