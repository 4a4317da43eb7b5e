"""Feeds over UDP, RTSP and HTTP, from servers in Python and from ffmpeg where it is installed."""

import functools
import http.server
import itertools
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.reconnect import ReconnectRules
from streaming_vlm_mlx.video.video_file import open_video
from tests.video.clips import numbers
from tests.video.feeds import RATE, TIMEOUT, Visit, Watcher, answering, feed_server, reading, transport_stream

# Bytes of MPEG-TS in a datagram, as everyone sends it.
DATAGRAM = 7 * 188
HAS_FFMPEG = shutil.which("ffmpeg") is not None
needs_ffmpeg = pytest.mark.skipif(not HAS_FFMPEG, reason="ffmpeg is not installed")


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Sender:
    """A thread that sends an MPEG transport stream in datagrams, a few at a time, while it is not on hold."""

    def __init__(self, port: int, content: bytes) -> None:
        self.goes, self._over = threading.Event(), threading.Event()
        self.goes.set()
        self._port, self._content = port, content
        threading.Thread(target=self._send, daemon=True).start()

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for at in range(0, len(self._content), DATAGRAM):
                self.goes.wait()
                with suppress(ConnectionRefusedError):
                    out.sendto(self._content[at : at + DATAGRAM], ("127.0.0.1", self._port))
                if self._over.wait(0.005):
                    return

    def end(self) -> None:
        self._over.set()
        self.goes.set()


def starts(chunks: list[Chunk]) -> list[float]:
    return [chunk.start for chunk in chunks]


def in_order(chunks: list[Chunk]) -> bool:
    """Return whether frame follows frame at two a second."""
    found = numbers(chunks)
    return all((after - before) % 40 == RATE // 2 for before, after in itertools.pairwise(found))


def test_a_feed_over_udp_that_stalls_goes_on(tmp_path: Path) -> None:
    port, watcher = free_port(socket.SOCK_DGRAM), Watcher()
    sender = Sender(port, transport_stream(tmp_path, count=3000))
    try:
        with open_video(f"udp://127.0.0.1:{port}", watch=watcher.watch) as source:
            assert source.duration is None
            chunks = source.chunks()
            found = [next(chunks) for _ in range(3)]
            assert starts(found) == [0.0, 1.0, 2.0]
            assert in_order(found)
            sender.goes.clear()
            # What is on its way may fill some seconds more.
            following = reading(chunks, 100)
            watcher.wait(lambda: watcher.told)
            sender.goes.set()
            rest = following.result(TIMEOUT)
            assert starts(rest) == [3.0 + number for number in range(100)]
            assert watcher.states == [("reconnecting", 1), ("live", 0)]
            assert in_order(rest[-20:])
    finally:
        sender.end()


class RtspServer:
    """A server of one stream that answers what a client of RTSP asks, and sends RTP over the same connection."""

    def __init__(self, listener: socket.socket, *contents: bytes) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener, self._contents = listener, list(contents)
        self.asked: list[str] = []
        self._over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while self._contents:
                connection, _ = self._listener.accept()
                with connection:
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        requests = connection.makefile("r", encoding="utf-8", newline="\r\n")
        while line := requests.readline():
            verb, headers = line.split()[0], {}
            while header := requests.readline().strip():
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            self.asked.append(verb)
            body = DESCRIPTION if verb == "DESCRIBE" else ""
            answer = [f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}", "Session: 1", f"Content-Length: {len(body)}"]
            if verb == "SETUP":
                assert "RTP/AVP/TCP" in headers["transport"]
                answer.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
            elif verb == "OPTIONS":
                answer.append("Public: DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif verb == "DESCRIBE":
                answer.append("Content-Type: application/sdp")
            connection.sendall(("\r\n".join(answer) + f"\r\n\r\n{body}").encode())
            if verb == "PLAY":
                connection.sendall(b"".join(map(rtp, *zip(*enumerate(pieces(self._contents.pop(0))), strict=True))))
                return


DESCRIPTION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"


def pieces(content: bytes) -> list[bytes]:
    return [content[at : at + DATAGRAM] for at in range(0, len(content), DATAGRAM)]


def rtp(number: int, payload: bytes) -> bytes:
    """Return a packet of RTP with MPEG-TS in it, as it stands in a connection of RTSP."""
    packet = b"\x80\x21" + number.to_bytes(2, "big") + bytes(4) + b"feed" + payload
    return b"$\x00" + len(packet).to_bytes(2, "big") + packet


def test_a_feed_over_rtsp_that_ends_comes_back(tmp_path: Path) -> None:
    watcher = Watcher()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RtspServer(listener, transport_stream(tmp_path), transport_stream(tmp_path, 100))
        with open_video(f"rtsp://127.0.0.1:{server.port}/live", watch=watcher.watch) as source:
            assert source.duration is None
            found = reading(source.chunks(), 5).result(TIMEOUT)
        listener.shutdown(socket.SHUT_RDWR)
    assert starts(found) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert numbers(found)[:6] == [0, 5, 10, 15, 20, 25]
    # FFmpeg keeps the last picture of a connection to itself.
    assert numbers(found)[6] in (20, 21)
    assert in_order(found[3:])
    assert server.asked.count("PLAY") == 2
    assert watcher.states == [("reconnecting", 1), ("live", 0)]


def test_pictures_of_a_camera_over_http_have_the_times_of_their_arrival(tmp_path: Path) -> None:
    watcher, pictures = Watcher(ReconnectRules(stall=1e9)), itertools.cycle(pictures_of_a_camera(tmp_path))
    visits: list[Visit] = []

    def answer(visit: Visit) -> None:
        visits.append(visit)
        visit.send(b"".join(itertools.islice(pictures, 10)), CAMERA)

    with feed_server() as server:
        answering(server, answer)
        with open_video(f"http://127.0.0.1:{server.port}/camera", watch=watcher.watch) as source:
            following, sent = reading(source.chunks(), 6), 0
            while not following.done():
                # Two pictures a second.
                watcher.move(0.5)
                visits[0].send(next(pictures))
                sent += 1
                threading.Event().wait(0.01)
    assert starts(following.result(TIMEOUT)) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert sent < 6 * RATE


CAMERA = "Content-Type: multipart/x-mixed-replace; boundary=frame\r\nConnection: close"


def pictures_of_a_camera(folder: Path) -> list[bytes]:
    content = transport_stream(folder, codec="mjpeg", pix_fmt="yuvj420p", ending=".mjpeg", options={})
    found = re.findall(rb"\xff\xd8.*?\xff\xd9", content, re.S)
    return [b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(p), p) for p in found]


@contextmanager
def ffmpeg(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ffmpeg in real time on a picture that moves."""
    with subprocess.Popen(["ffmpeg", "-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", *words]) as process:
        try:
            yield process
        finally:
            process.kill()


ENCODING = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10", "-pix_fmt", "yuv420p")


@needs_ffmpeg
def test_ffmpeg_over_http_that_stalls_dies_and_is_started_again() -> None:
    port, watcher = free_port(socket.SOCK_STREAM), Watcher(ReconnectRules(attempts=1000))
    to = (*ENCODING, "-f", "mpegts", "-listen", "1", f"http://127.0.0.1:{port}/live.ts")
    address = f"http://127.0.0.1:{port}/live.ts"
    with ExitStack() as stack:
        first = stack.enter_context(ffmpeg("testsrc=s=64x48:r=10", *to))
        wait_for_port(port)
        source = stack.enter_context(open_video(address, watch=watcher.watch))
        chunks = source.chunks()
        assert [next(chunks).start for _ in range(2)] == [0.0, 1.0]
        first.send_signal(signal.SIGSTOP)
        following = reading(chunks, 5)
        watcher.wait(lambda: watcher.told)
        assert watcher.told[0].reason == "no picture for 10 s"
        first.kill()
        first.wait(TIMEOUT)
        stack.enter_context(ffmpeg("mandelbrot=s=128x96:r=10", *to))
        assert starts(following.result(TIMEOUT)) == [2.0, 3.0, 4.0, 5.0, 6.0]
        assert watcher.states[-1] == ("live", 0)


def wait_for_port(port: int) -> None:
    """Wait until a process listens on `port`, without connecting to it, which would be its only visitor."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("looks for the port of ffmpeg as Linux shows it")
    while f":{port:04X} 00000000:0000 0A" not in Path("/proc/net/tcp").read_text(encoding="ascii"):
        threading.Event().wait(0.01)


@needs_ffmpeg
def test_ffmpeg_over_udp() -> None:
    port, watcher = free_port(socket.SOCK_DGRAM), Watcher()
    to = (*ENCODING, "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size={DATAGRAM}")
    with (
        ffmpeg("testsrc=s=64x48:r=10", *to),
        open_video(f"udp://127.0.0.1:{port}", watch=watcher.watch) as source,
    ):
        assert starts(reading(source.chunks(), 3).result(TIMEOUT)) == [0.0, 1.0, 2.0]
        assert watcher.told == []


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve the files of `folder`; yield the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@needs_ffmpeg
def test_a_playlist_of_ffmpeg_plays_and_is_over_when_it_says_so(tmp_path: Path) -> None:
    watcher = Watcher()
    to = (*ENCODING, "-t", "5", "-f", "hls", "-hls_time", "1", "-hls_list_size", "0", str(tmp_path / "live.m3u8"))
    with web_server(tmp_path) as address, ffmpeg("testsrc=s=64x48:r=10", *to):
        while not (tmp_path / "live.m3u8").exists():
            threading.Event().wait(0.01)
        with open_video(f"{address}/live.m3u8", watch=watcher.watch) as source:
            assert source.duration is None
            found = reading(source.chunks(), 100)
            watcher.wait(found.done)
    assert starts(found.result(TIMEOUT))[-1] == 4.0
    assert watcher.states[-1] == ("ended", 0)
    assert watcher.told[-1].reason == "it is complete"
