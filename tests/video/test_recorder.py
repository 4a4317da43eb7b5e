"""A feed that is kept in a file, through stalls, new connections and a process that is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.recorder import FORMATS, Recorder
from streaming_vlm_mlx.video.video_file import open_video
from tests.video.clips import make_clip, number_of
from tests.video.feeds import HEAD, RATE, TIMEOUT, FeedServer, Visit, Watcher, answering, feed_server, transport_stream

ROOT = Path(__file__).parents[2]
ENDINGS = sorted(FORMATS)


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with feed_server() as running:
        yield running


@pytest.fixture
def told() -> list[str]:
    return []


def frames(path: Path) -> list[int]:
    """Return the numbers of all frames of a file, modulo 40; their times must be a regular row."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [(frame.time, number_of(frame.to_ndarray(format="rgb24"))) for frame in container.decode(stream)]
    times = [time for time, _ in found if time is not None]
    assert [time - times[0] for time in times] == pytest.approx([n / RATE for n in range(len(found))], abs=0.02)
    return [number for _, number in found]


def whole(content: bytes) -> str:
    return f"{HEAD}\r\nContent-Length: {len(content)}"


def watch_all(server: FeedServer, recorder: Recorder, *contents: bytes) -> int:
    """Watch a feed that brings `contents`, each in a connection of its own, to its end; return its seconds."""

    def serve(visit: Visit, *rest: bytes) -> None:
        content, *later = rest
        if later:
            answering(server, lambda next_visit: serve(next_visit, *later))
        visit.send(content, HEAD if later else whole(content))
        visit.close()

    answering(server, lambda visit: serve(visit, *contents))
    with open_video(f"http://127.0.0.1:{server.port}/live", watch=Watcher(sink=recorder).watch) as source:
        return len(list(source.chunks()))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_feed_that_comes_back_is_one_file(ending: str, server: FeedServer, tmp_path: Path, told: list[str]) -> None:
    recorder = Recorder(tmp_path / f"kept{ending}")
    recorder.listen(told.append)
    first, second = transport_stream(tmp_path), transport_stream(tmp_path, 100)
    assert watch_all(server, recorder, first, second) == 6
    assert recorder.close() == [tmp_path / f"kept{ending}"]
    assert frames(tmp_path / f"kept{ending}") == [number % 40 for number in (*range(30), *range(100, 130))]
    assert told == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_other_codecs_begin_another_file(ending: str, server: FeedServer, tmp_path: Path, told: list[str]) -> None:
    (tmp_path / f"kept-2{ending}").touch()
    recorder = Recorder(tmp_path / f"kept{ending}")
    recorder.listen(told.append)
    other = transport_stream(tmp_path, 100, codec="mpeg4", options={"b": "4M"})
    assert watch_all(server, recorder, transport_stream(tmp_path), other) == 6
    assert recorder.close() == [tmp_path / f"kept{ending}", tmp_path / f"kept-3{ending}"]
    assert frames(tmp_path / f"kept{ending}") == list(range(30))
    assert frames(tmp_path / f"kept-3{ending}") == [number % 40 for number in range(100, 130)]
    assert told == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_sound_is_kept(ending: str, server: FeedServer, tmp_path: Path, told: list[str]) -> None:
    recorder = Recorder(tmp_path / f"kept{ending}")
    recorder.listen(told.append)
    assert watch_all(server, recorder, with_sound(tmp_path / "sound.ts")) == 3
    recorder.close()
    assert told == []
    with av.open(str(tmp_path / f"kept{ending}")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        seconds = [packet.duration * packet.time_base for packet in container.demux(audio=0) if packet.duration]
    assert float(sum(seconds)) == pytest.approx(3.0, abs=0.3)


def with_sound(path: Path) -> bytes:
    """Return three seconds of pictures with a sound, written to `path`."""
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=RATE, options={"bf": "0"}), out.add_stream("aac", rate=48000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(3 * RATE):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            out.mux(video.encode(picture))
            for part in range(5):
                sound = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
                sound.sample_rate, sound.pts = 48000, (5 * number + part) * 960
                out.mux(audio.encode(sound))
        out.mux(video.encode())
        out.mux(audio.encode())
    return path.read_bytes()


RECORDING = """
import sys
from pathlib import Path
from streaming_vlm_mlx.video.feed import FeedWatch
from streaming_vlm_mlx.video.recorder import Recorder
from streaming_vlm_mlx.video.video_file import open_video

with open_video(sys.argv[1], watch=FeedWatch(sink=Recorder(Path(sys.argv[2])))) as source:
    for chunk in source.chunks():
        print(chunk.index, flush=True)
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_that_is_killed_leaves_a_file_that_plays(ending: str, server: FeedServer, tmp_path: Path) -> None:
    kept = tmp_path / f"kept{ending}"
    content = transport_stream(tmp_path, count=50)
    answering(server, lambda visit: visit.send(content, HEAD))
    words = [sys.executable, "-c", RECORDING, f"http://127.0.0.1:{server.port}/live", str(kept)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(4)] == ["0\n", "1\n", "2\n", "3\n"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait(TIMEOUT)
    found = frames(kept)
    # What the format holds back is a second at most.
    assert found == [number % 40 for number in range(len(found))]
    assert len(found) >= 30


@pytest.mark.parametrize("name", ["kept.avi", "kept"])
def test_an_ending_without_a_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SvmError, match=r"cannot keep a feed; name a file that ends in \.ts, \.mkv, \.mp4"):
        Recorder(tmp_path / name)


def test_a_recording_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept.ts").write_bytes(b"the final")
    with pytest.raises(SvmError, match=r"kept\.ts exists; name a file that does not"):
        Recorder(tmp_path / "kept.ts")
    assert (tmp_path / "kept.ts").read_bytes() == b"the final"


def test_a_feed_that_cannot_be_kept_plays_on(server: FeedServer, tmp_path: Path, told: list[str]) -> None:
    recorder = Recorder(tmp_path / "none" / "kept.ts")
    assert watch_all(server, recorder, transport_stream(tmp_path)) == 3
    # Whoever listens late is told as well.
    recorder.listen(told.append)
    assert recorder.close() == []
    assert told == [f"the feed is not kept any more: {tmp_path}/none/kept.ts: No such file or directory."]


def test_a_codec_that_the_format_does_not_take_is_told(server: FeedServer, tmp_path: Path, told: list[str]) -> None:
    recorder = Recorder(tmp_path / "kept.mp4")
    recorder.listen(told.append)
    content = transport_stream(tmp_path, codec="libvpx", ending=".mkv", options={}, container_options={"live": "1"})
    assert watch_all(server, recorder, content) == 3
    assert recorder.close() == []
    assert not (tmp_path / "kept.mp4").exists()
    assert len(told) == 1
    assert told[0].startswith("the feed is not kept any more: ")


def test_pictures_of_a_device_that_are_not_encoded_are_not_kept(tmp_path: Path, told: list[str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    recorder = Recorder(tmp_path / "kept.mkv")
    recorder.listen(told.append)
    with open_video(f"lavfi:movie={clip}", watch=Watcher(sink=recorder).watch) as source:
        assert len(list(source.chunks())) == 3
    assert recorder.close() == []
    assert len(told) == 1
    assert told[0].endswith("this device's pictures are not encoded, and cannot be copied.")
