"""The sound of a live feed: each second of it is heard while its picture is shown, through losses and stalls."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from streaming_vlm_mlx.audio.clip_track import RATE, ClipTrack, Samples
from streaming_vlm_mlx.audio.feed_sound import MOST_PACKETS, MOST_UNDECODED, FeedSound
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.feed import PacketSink
from streaming_vlm_mlx.video.feed_sound import SoundFormat, SoundPacket
from streaming_vlm_mlx.video.recorder import Recorder
from streaming_vlm_mlx.video.video_file import VideoFile, open_video
from tests.audio.sounds import make_clip_with_sound, second_of
from tests.player.fakes import Feed, StartPlayer, until
from tests.player.test_feed import Link, Stalled
from tests.player.test_sound import Devices
from tests.video.feeds import HEAD, FeedServer, Visit, Watcher, answering, feed_server, transport_stream
from tui.player.playhead import GRACE, Playhead
from tui.player.sound import SoundSpec

# Seconds between two ticks of the player.
TICK = 0.05


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with feed_server() as running:
        yield running


class Listener:
    """A viewer of a feed, on a clock that the test moves."""

    def __init__(self, server: FeedServer, content: bytes, sink: PacketSink | None = None, head: str = HEAD) -> None:
        self.now, self.visits = 100.0, list[Visit]()
        self.sound, self.track = FeedSound("feed"), ClipTrack()
        self.head = Playhead(lambda: self.now, None)
        watcher = Watcher(sink=sink)

        def answer(visit: Visit) -> None:
            self.visits.append(visit)
            visit.send(content, head)

        answering(server, answer)
        self.times = list[float]()
        watch = replace(watcher.watch, hear=self._hear)
        self.source: VideoFile = open_video(f"http://127.0.0.1:{server.port}/live", watch=watch)
        assert self.source.feed
        self.opened = self.sound.open(self.source.feed.sound, self.track, lambda: self.now)
        self.chunks = self.source.chunks()

    def _hear(self, packet: SoundPacket) -> None:
        self.times.append(packet.time)
        self.sound.put(packet)

    def show(self, chunk: Chunk) -> Samples:
        """Show `chunk` for a second, and return what is heard in it."""
        self.head.follow(chunk.start, chunk.end)
        return self.play(1.0)

    def play(self, seconds: float) -> Samples:
        """Return what is heard in the next `seconds`."""
        while self.sound.step():
            pass
        parts = []
        for _ in range(round(seconds / TICK)):
            self.head.tick()
            self.track.motion = self.head.motion
            parts.append(self.track.render(round(TICK * RATE), self.now))
            self.now += TICK
        return np.concatenate(parts)


@pytest.mark.parametrize(
    ("ending", "codec", "rate"),
    [(".ts", "aac", 48_000), (".ts", "mp2", 44_100), (".mkv", "libopus", 48_000), (".mkv", "pcm_s16le", 22_050)],
)
def test_each_second_is_heard_while_it_is_shown(
    server: FeedServer, tmp_path: Path, ending: str, codec: str, rate: int
) -> None:
    live = {"live": "1"} if ending == ".mkv" else {}
    content = make_clip_with_sound(tmp_path / f"clip{ending}", 5.0, codec, rate, container_options=live)
    listener = Listener(server, content.read_bytes())
    with listener.source:
        chunks = [next(listener.chunks) for _ in range(4)]
        heard = [listener.show(chunk) for chunk in chunks]
    # A tone lasts for its second: also its beginning and its end are in place.
    assert [second_of(part[1500:]) for part in heard] == [0, 1, 2, 3]
    for number, part in enumerate(heard[1:], 1):
        assert [second_of(part[:4800]), second_of(part[-4800:])] == [number, number]
        assert np.abs(part).reshape(20, -1).max(axis=1).min() > 0.3
    assert listener.track.jumps == listener.track.gaps == 0


def test_after_a_loss_the_sound_goes_on_with_the_pictures(server: FeedServer, tmp_path: Path) -> None:
    content = make_clip_with_sound(tmp_path / "clip.ts", 3.0).read_bytes()
    listener = Listener(server, content)
    with listener.source:
        chunks = [next(listener.chunks) for _ in range(2)]
        listener.visits[0].close()
        # The times of the second connection begin anew.
        answering(server, lambda visit: visit.send(content, HEAD))
        chunks += [next(listener.chunks) for _ in range(3)]
        assert [chunk.start for chunk in chunks] == [0.0, 1.0, 2.0, 3.0, 4.0]
        heard = [listener.show(chunk) for chunk in chunks]
    assert [second_of(part[2400:-2400]) for part in heard] == [0, 1, 2, 0, 1]
    assert listener.times == sorted(listener.times)


def test_in_a_stall_there_is_silence_and_then_the_sound_is_in_place(server: FeedServer, tmp_path: Path) -> None:
    listener = Listener(server, make_clip_with_sound(tmp_path / "clip.ts", 5.0).read_bytes())
    with listener.source:
        chunks = [next(listener.chunks) for _ in range(4)]
        assert [second_of(listener.show(chunk)[1500:]) for chunk in chunks[:2]] == [0, 1]
        waiting = listener.play(3.0)
        grace = round((GRACE + TICK) * RATE)
        assert np.abs(waiting[: round(GRACE * RATE) - 4800]).max() > 0.3
        assert not waiting[grace:].any()
        heard = listener.show(chunks[2])
        # What was heard before the stall is not heard again.
        assert not heard[: round(GRACE * RATE)].any()
        assert [second_of(heard[grace + 480 : grace + 9600]), second_of(heard[-9600:])] == [2, 2]
        assert second_of(listener.show(chunks[3])) == 3


def test_a_feed_is_kept_whole_while_it_is_heard(server: FeedServer, tmp_path: Path) -> None:
    content = make_clip_with_sound(tmp_path / "clip.ts", 4.0).read_bytes()
    head = f"{HEAD}\r\nContent-Length: {len(content)}"

    def kept(name: str, watch: Callable[[Recorder], None]) -> list[bytes]:
        recorder = Recorder(tmp_path / name)
        watch(recorder)
        recorder.close()
        with av.open(str(tmp_path / name)) as container:
            return [bytes(packet) for packet in container.demux() if packet.size]

    def hear(recorder: Recorder) -> None:
        listener = Listener(server, content, recorder, head)
        with listener.source:
            heard = [listener.show(chunk) for chunk in list(listener.chunks)]
        assert [second_of(part[2400:-2400]) for part in heard] == [0, 1, 2, 3]

    def see(recorder: Recorder) -> None:
        answering(server, lambda visit: visit.send(content, head))
        with open_video(f"http://127.0.0.1:{server.port}/live", watch=Watcher(sink=recorder).watch) as source:
            assert len(list(source.chunks())) == 4

    assert kept("heard.ts", hear) == kept("seen.ts", see)


def test_a_feed_whose_second_connection_brings_sound_is_heard_from_there(server: FeedServer, tmp_path: Path) -> None:
    listener = Listener(server, transport_stream(tmp_path))
    with listener.source:
        chunks = [next(listener.chunks) for _ in range(2)]
        assert listener.opened.silent
        content = make_clip_with_sound(tmp_path / "clip.ts", 3.0).read_bytes()
        answering(server, lambda visit: visit.send(content, HEAD))
        listener.visits[0].close()
        chunks += [next(listener.chunks) for _ in range(3)]
        heard = [listener.show(chunk) for chunk in chunks]
    assert not listener.opened.silent
    assert not np.concatenate(heard[:3]).any()
    assert [second_of(part[2400:-2400]) for part in heard[3:]] == [0, 1]


def test_a_feed_whose_sound_cannot_be_decoded_says_so() -> None:
    sound = FeedSound("feed")
    with pytest.raises(SvmError, match="feed has sound that this FFmpeg cannot decode; ask for AAC"):
        sound.open("undecodable", ClipTrack(), lambda: 0.0)
    sound.put(packet(0.0))
    assert not sound.step()


PCM = SoundFormat("pcm_s16le", RATE, "stereo", None)


def packet(time: float, form: SoundFormat = PCM, level: int = 8192, seconds: float = 0.02) -> SoundPacket:
    """Return a packet whose samples all have the `level`."""
    return SoundPacket(form, time, np.full((round(seconds * RATE), 2), level, "<i2").tobytes())


@pytest.fixture
def sound() -> FeedSound:
    return FeedSound("feed")


def decode_all(sound: FeedSound) -> None:
    while sound.step():
        pass


def test_damaged_packets_are_skipped_and_when_all_are_it_is_said_once(sound: FeedSound) -> None:
    track, aac = ClipTrack(), SoundFormat("aac", RATE, "stereo", None)
    sound.open("decodable", track, lambda: 0.0)
    for number in range(MOST_UNDECODED + 50):
        sound.put(SoundPacket(aac, number / 50, b"no sound at all"))
    sound.put(packet(9.0))
    with pytest.raises(SvmError, match="feed has sound that this FFmpeg cannot decode"):
        decode_all(sound)
    decode_all(sound)
    assert track.run
    assert [block.time for block in track.run.blocks] == [9.0]


def test_what_was_heard_is_left_out_when_it_comes_again(sound: FeedSound) -> None:
    track = ClipTrack()
    sound.open("decodable", track, lambda: 0.0)
    again = replace(PCM)
    first = packet(1.0), packet(1.02)
    second = packet(0.99, again, 0), packet(1.01, again, 0), packet(1.03, again, 4096), packet(1.05, again)
    for one in (*first, *second):
        sound.put(one)
    decode_all(sound)
    assert track.run
    heard = track.run.read(0, RATE)
    assert len(heard) == pytest.approx(0.07 * RATE, abs=2)
    assert np.count_nonzero(heard[:, 0] == 0.125) == pytest.approx(0.01 * RATE, abs=2)
    assert np.count_nonzero(heard[:, 0] == 0.0) <= 2


def test_no_more_waits_than_half_a_minute(sound: FeedSound) -> None:
    track = ClipTrack()
    for number in range(MOST_PACKETS + 10):
        sound.put(packet(number / 50))
    sound.open("decodable", track, lambda: 0.0)
    sound.step()
    assert track.run
    assert track.run.blocks[0].time == pytest.approx(10 / 50)
    sound.close()
    assert not sound.step()


async def test_the_sound_of_a_second_begins_when_it_is_shown(start_player: StartPlayer) -> None:
    feed, devices, sound = Feed(), Devices(), FeedSound("feed")

    def open_source(track: ClipTrack, clock: Callable[[], float]) -> FeedSound | None:
        return sound.open("decodable", track, clock)

    async with start_player(seconds=feed, feed=Link(), sound=SoundSpec(open_source, 100, devices)) as p:
        await until(devices.opened.is_set)
        for number in range(100):
            sound.put(packet(number / 50))
        feed.coming.put(0)
        await until(lambda: p.position == 1.0)
        assert p.screen.sound
        clip = p.screen.sound.mixer.clip
        motion = clip.motion
        assert (motion.position, motion.moving, motion.end) == (0.0, True, 1.0 + GRACE)
        await until(lambda: clip.run and clip.run.find(0.5))
        await p.press("m")
        assert p.screen.sound.muted
        feed.coming.put(None)


async def test_quitting_does_not_wait_for_a_stalled_feed_with_sound(start_player: StartPlayer) -> None:
    feed, devices, closed = Stalled(), Devices(), threading.Event()

    class Watched(FeedSound):
        def close(self) -> None:
            super().close()
            closed.set()

    sound = Watched("feed")

    def open_source(track: ClipTrack, clock: Callable[[], float]) -> FeedSound | None:
        return sound.open("decodable", track, clock)

    async with start_player(seconds=feed, feed=Link(), sound=SoundSpec(open_source, 100, devices)) as p:
        await until(devices.opened.is_set)
        await p.press("q")
    assert not feed.over.is_set()
    await until(closed.is_set)
    feed.over.set()
