"""Feeds that stall, end and come back, from servers on 127.0.0.1."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from av import Packet
from av.stream import Stream

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.reconnect import ReconnectRules
from streaming_vlm_mlx.video.video_file import VideoFile, open_video
from tests.video.clips import make_clip, numbers
from tests.video.feeds import (
    HEAD,
    RATE,
    TIMEOUT,
    FeedServer,
    Visit,
    Watcher,
    answering,
    feed_server,
    reading,
    transport_stream,
)


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with feed_server() as running:
        yield running


def opened(server: FeedServer, content: bytes, watcher: Watcher, head: str = HEAD) -> tuple[VideoFile, Visit]:
    """Open the feed of `server`, whose first connection brings `content` and stays open."""
    visits: list[Visit] = []

    def answer(visit: Visit) -> None:
        visits.append(visit)
        visit.send(content, head)

    answering(server, answer)
    source = open_video(f"http://127.0.0.1:{server.port}/live", watch=watcher.watch)
    return source, visits[0]


def test_a_feed_that_ends_and_comes_back_goes_on(server: FeedServer, tmp_path: Path) -> None:
    watcher = Watcher()
    source, first = opened(server, transport_stream(tmp_path), watcher)
    with source:
        chunks = source.chunks()
        found = [next(chunks), next(chunks)]
        first.close()
        answering(server, lambda visit: visit.send(transport_stream(tmp_path, 100), HEAD))
        found += [next(chunks) for _ in range(3)]
        assert [(chunk.start, chunk.end) for chunk in found] == [(n, n + 1.0) for n in range(5)]
        assert numbers(found) == [0, 5, 10, 15, 20, 25, 20, 25, 30, 35]
        assert watcher.states == [("reconnecting", 1), ("live", 0)]
        assert watcher.told[0].reason == "the connection broke off"


def test_a_stall_is_said_and_then_connected_anew(server: FeedServer, tmp_path: Path) -> None:
    watcher = Watcher()
    source, _ = opened(server, transport_stream(tmp_path), watcher)
    with source:
        assert source.feed is not None
        feed, chunks = source.feed, source.chunks()
        assert [chunk.start for chunk in (next(chunks), next(chunks))] == [0.0, 1.0]
        following = reading(chunks, 2)
        watcher.wait(lambda: feed.status.state == "silent")
        assert feed.status.seconds >= 3.0
        answering(server, lambda visit: visit.send(transport_stream(tmp_path, 60, 50), HEAD))
        watcher.wait(lambda: watcher.told)
        assert [chunk.start for chunk in following.result(TIMEOUT)] == [2.0, 3.0]
        assert watcher.told[0].reason == "no picture for 10 s"
        assert watcher.states == [("reconnecting", 1), ("live", 0)]


def test_a_server_that_stays_away_is_the_end_and_a_retry_brings_the_feed_back(tmp_path: Path) -> None:
    watcher = Watcher(ReconnectRules(attempts=3))
    with feed_server() as server:
        port = server.port
        source, _ = opened(server, transport_stream(tmp_path), watcher)
        chunks = source.chunks()
        assert [chunk.start for chunk in (next(chunks), next(chunks))] == [0.0, 1.0]
    with source:
        assert [chunk.start for chunk in chunks] == [2.0]
        assert watcher.states == [("reconnecting", 1), ("reconnecting", 2), ("reconnecting", 3), ("ended", 0)]
        assert watcher.told[-1].reason == "Connection refused"
        assert list(source.chunks()) == []
        assert source.feed is not None
        with feed_server(port) as server:
            answering(server, lambda visit: visit.send(transport_stream(tmp_path, 100), HEAD))
            source.feed.reconnect()
            chunks = source.chunks()
            assert [chunk.start for chunk in (next(chunks), next(chunks))] == [3.0, 4.0]


def test_what_is_served_as_a_file_is_over_at_its_end(server: FeedServer, tmp_path: Path) -> None:
    watcher, content = Watcher(), transport_stream(tmp_path)
    source, _ = opened(server, content, watcher, f"{HEAD}\r\nContent-Length: {len(content)}")
    with source:
        assert source.duration is None
        assert [chunk.start for chunk in source.chunks()] == [0.0, 1.0, 2.0]
        assert watcher.states == [("ended", 0)]


def test_a_retry_does_not_wait_for_the_stall(server: FeedServer, tmp_path: Path) -> None:
    watcher = Watcher()
    source, _ = opened(server, transport_stream(tmp_path), watcher)
    with source:
        assert source.feed is not None
        chunks = source.chunks()
        assert [next(chunks).start, next(chunks).start] == [0.0, 1.0]
        following = reading(chunks, 1)
        answering(server, lambda visit: visit.send(transport_stream(tmp_path, 60), HEAD))
        source.feed.reconnect()
        assert following.result(TIMEOUT)[0].start == 2.0
        assert watcher.states == [("reconnecting", 1), ("live", 0)]


def test_closing_ends_a_read_that_waits(server: FeedServer, tmp_path: Path) -> None:
    watcher = Watcher()
    source, _ = opened(server, transport_stream(tmp_path), watcher)
    chunks = source.chunks()
    assert [next(chunks).start, next(chunks).start] == [0.0, 1.0]
    following = reading(chunks, 2)
    watcher.wait(lambda: source.feed and source.feed.status.state == "silent")
    source.close()
    assert [chunk.start for chunk in following.result(TIMEOUT)] in ([], [2.0])


def test_a_feed_that_changes_size_and_codec_at_a_new_connection_goes_on(server: FeedServer, tmp_path: Path) -> None:
    watcher = Watcher()
    source, first = opened(server, transport_stream(tmp_path), watcher)
    with source:
        chunks = source.chunks()
        found = [next(chunks), next(chunks)]
        first.close()
        other = transport_stream(tmp_path, 100, 40, codec="mpeg4", size=(128, 72), options={"b": "4M"})
        answering(server, lambda visit: visit.send(other, HEAD))
        found += [next(chunks) for _ in range(4)]
        assert {chunk.frames.shape for chunk in found} == {(2, 48, 64, 3)}
        assert numbers(found) == [0, 5, 10, 15, 20, 25, 20, 25, 30, 35, 0, 5]


def test_a_feed_that_changes_size_in_the_middle_goes_on(server: FeedServer, tmp_path: Path) -> None:
    watcher = Watcher()
    source, visit = opened(server, transport_stream(tmp_path), watcher)
    with source:
        chunks = source.chunks()
        found = [next(chunks), next(chunks)]
        visit.send(transport_stream(tmp_path, 30, 30, size=(128, 72)))
        found += [next(chunks) for _ in range(3)]
        assert {chunk.frames.shape for chunk in found} == {(2, 48, 64, 3)}
        assert numbers(found) == [0, 5, 10, 15, 20, 25, 30, 35, 0, 5]
        assert watcher.told == []


def test_a_feed_that_changes_codec_in_the_middle_is_connected_anew(server: FeedServer, tmp_path: Path) -> None:
    # On a busy machine much of the clock's time passes until enough packets are there.
    watcher = Watcher(ReconnectRules(stall=1e4))
    source, visit = opened(server, transport_stream(tmp_path), watcher)
    with source:
        chunks = source.chunks()
        assert [next(chunks).start, next(chunks).start] == [0.0, 1.0]
        other = transport_stream(tmp_path, 30, 400, codec="mpeg4", options={"b": "4M"})
        answering(server, lambda visit: visit.send(other, HEAD))
        following = reading(chunks, 4)
        visit.send(other)
        watcher.wait(following.done)
        assert [chunk.start for chunk in following.result(TIMEOUT)] == [2.0, 3.0, 4.0, 5.0]
        assert watcher.states == [("reconnecting", 1), ("live", 0)]
        assert watcher.told[0].reason == "its pictures cannot be decoded any more"


def test_a_feed_without_timestamps_is_counted(server: FeedServer, tmp_path: Path) -> None:
    watcher = Watcher()
    source, _ = opened(server, transport_stream(tmp_path, ending=".h264", count=100), watcher)
    with source:
        chunks = source.chunks()
        found = [next(chunks) for _ in range(3)]
        assert [chunk.start for chunk in found] == [0.0, 1.0, 2.0]
        assert source.frame_rate == RATE


def test_a_feed_that_never_shows_a_picture_is_named(server: FeedServer, tmp_path: Path) -> None:
    live = {"live": "1"}
    content = transport_stream(tmp_path, ending=".mkv", codec="mjpeg", pix_fmt="yuvj420p", container_options=live)
    content = content[:800]
    answering(server, lambda visit: (visit.send(content, HEAD), visit.close()))
    with pytest.raises(SvmError, match=r"^http://127\.0\.0\.1:\d+/live has no frame .*: the connection broke off\. "):
        open_video(f"http://127.0.0.1:{server.port}/live", watch=Watcher().watch)


PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n"


def test_a_playlist_that_stalls_repeats_nothing_and_goes_on(tmp_path: Path) -> None:
    for first in (0, 30, 60):
        (tmp_path / f"part{first}.ts").write_bytes(transport_stream(tmp_path, first))
    playlist = tmp_path / "live.m3u8"

    def publish(*parts: int, end: str = "") -> None:
        lines = "".join(f"#EXTINF:3.0,\npart{part}.ts\n" for part in parts)
        playlist.with_suffix(".new").write_text(f"{PLAYLIST}{lines}{end}")
        playlist.with_suffix(".new").rename(playlist)

    publish(0, 30)
    watcher = Watcher(ReconnectRules())
    with open_video(playlist, watch=watcher.watch) as source:
        chunks = source.chunks()
        found = [next(chunks) for _ in range(5)]
        following = reading(chunks, 3)
        watcher.wait(lambda: watcher.told)
        publish(0, 30, 60)
        found += following.result(TIMEOUT)
        assert numbers(found) == [number % 40 for number in range(0, 80, 5)]
        publish(0, 30, 60, end="#EXT-X-ENDLIST\n")
        rest = reading(chunks, 9)
        watcher.wait(rest.done)
        assert numbers(rest.result(TIMEOUT)) == [0, 5]
        assert watcher.states[-1] == ("ended", 0)


class CountingSink:
    """Counts the packets of a feed."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self, video: Stream, others: tuple[Stream, ...]) -> Callable[[Packet], None]:
        return self._keep

    def _keep(self, packet: Packet) -> None:
        self.count += 1


def test_connecting_again_to_a_playlist_loses_nothing_that_was_read_ahead(tmp_path: Path) -> None:
    for first in (0, 30):
        (tmp_path / f"part{first}.ts").write_bytes(transport_stream(tmp_path, first))
    playlist, sink = tmp_path / "live.m3u8", CountingSink()
    playlist.write_text(f"{PLAYLIST}#EXTINF:3.0,\npart0.ts\n#EXTINF:3.0,\npart30.ts\n")
    watcher = Watcher(ReconnectRules(), sink)
    with open_video(playlist, watch=watcher.watch) as source:
        chunks = source.chunks()
        found = [next(chunks) for _ in range(2)]
        # The last ones come with the next segment.
        watcher.wait(lambda: sink.count >= 55)
        assert source.feed
        source.feed.reconnect()
        rest = reading(chunks, 3)
        found += rest.result(TIMEOUT)
    assert numbers(found) == [number % 40 for number in range(0, 50, 5)]
    assert [chunk.start for chunk in found] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_file_without_ranges_plays_and_goes_back(server: FeedServer, tmp_path: Path) -> None:
    content = make_clip(tmp_path / "clip.mp4", options={"movflags": "faststart"}).read_bytes()

    def serve(visit: Visit) -> None:
        visit.send(content, f"Content-Type: video/mp4\r\nContent-Length: {len(content)}")
        answering(server, serve)

    answering(server, serve)
    with open_video(f"http://127.0.0.1:{server.port}/clip.mp4") as source:
        assert source.duration == pytest.approx(3.0)
        assert numbers(list(source.chunks(0.0))) == [0, 15, 30, 5, 20, 35]
        assert numbers(list(source.chunks(1.0))) == [30, 5, 20, 35]


def test_a_file_whose_index_cannot_be_reached_says_what_to_do(server: FeedServer, tmp_path: Path) -> None:
    # Larger than what FFmpeg reads ahead.
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    content = make_clip(tmp_path / "clip.mp4", paint=lambda *_: np.roll(noise, _[0], 0), gop=1, count=300).read_bytes()
    assert len(content) > 1 << 18
    head = f"Content-Length: {len(content)}"
    answering(server, lambda visit: (visit.send(content, head), visit.close()))
    with pytest.raises(SvmError, match=r"index is at its end.*Download it"):
        open_video(f"http://127.0.0.1:{server.port}/clip.mp4")
