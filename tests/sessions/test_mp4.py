"""The MP4 with subtitles, read back with FFmpeg."""

from pathlib import Path

import av
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.mp4 import write_mp4
from streaming_vlm_mlx.stream.events import GenerationResult
from tests.video.clips import make_clip

SPOKEN = [
    GenerationResult(0, 0.0, 1.0, "He cuts inside & <b>scores</b>!"),
    GenerationResult(1, 1.0, 2.0, ""),
    GenerationResult(2, 2.0, 2.5, "Señor — {\\an8}¡gol!\nTwo lines"),
]


def read_cues(path: Path) -> list[tuple[float, float, str]]:
    """Return start, end and text of the cues of a file's subtitle track."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        packets = [p for p in container.demux(stream) if p.size > 2]
        return [
            (float(p.pts * p.time_base), float((p.pts + p.duration) * p.time_base), bytes(p)[2:].decode())
            for p in packets
        ]


def read_frames(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray").tobytes() for frame in container.decode(video=0)]


def test_commentary_is_a_track_and_the_picture_stays(tmp_path: Path) -> None:
    clip, out = make_clip(tmp_path / "clip.mp4", count=75, rate=30), tmp_path / "out.mp4"
    write_mp4(out, str(clip), SPOKEN)
    cues = read_cues(out)
    assert cues[0] == (0.0, 1.0, "He cuts inside & ‹b›scores‹/b›!")
    assert cues[1][:2] == (2.0, 2.5)
    assert cues[1][2].splitlines() == ["Señor — (\\an8)¡gol!", "Two lines"]
    assert len(cues) == 2
    assert read_frames(out) == read_frames(clip)


def test_sound_is_copied_too(shared: Path, tmp_path: Path) -> None:
    clip, out = shared / "clips" / "basketball.mp4", tmp_path / "out.mp4"
    write_mp4(out, str(clip), SPOKEN)
    with av.open(str(clip)) as before, av.open(str(out)) as after:
        assert [s.type for s in after.streams] == ["video", "audio", "subtitle"]
        was, now = ([bytes(p) for p in c.demux(audio=0) if p.size] for c in (before, after))
        assert was == now


def test_a_silent_session_is_no_error(tmp_path: Path) -> None:
    clip, out = make_clip(tmp_path / "clip.mp4", count=30, rate=30), tmp_path / "out.mp4"
    write_mp4(out, str(clip), [])
    assert len(read_frames(out)) == 30


def test_what_is_no_clip_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_text("no video")
    with pytest.raises(SvmError, match="not a video"):
        write_mp4(tmp_path / "out.mp4", str(tmp_path / "clip.mp4"), SPOKEN)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("count", [2, 3, 40])
def test_no_picture_of_a_file_that_does_not_say_when_to_decode_is_lost(tmp_path: Path, count: int) -> None:
    """FFmpeg gives the first packets of a Matroska file no such time."""
    clip, out = make_clip(tmp_path / "clip.mkv", count=count, rate=10), tmp_path / "out.mp4"
    write_mp4(out, str(clip), SPOKEN)
    assert read_frames(out) == read_frames(clip)
