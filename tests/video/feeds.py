"""Servers of feeds on 127.0.0.1, which send what a test lets them; what they send is made by PyAV's own muxers."""

import itertools
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.feed import FeedWatch, PacketSink
from streaming_vlm_mlx.video.reconnect import FeedStatus, ReconnectRules
from tests.video.clips import grey, make_clip

RATE = 10
# A limit in seconds of real time; what a test waits for comes much sooner.
TIMEOUT = 60.0


def transport_stream(folder: Path, first: int = 0, count: int = 3 * RATE, ending: str = ".ts", **clip: Any) -> bytes:
    """Return `count` frames of an MPEG transport stream, from number `first` on, with times to match."""
    path = folder / f"{first}-{count}{ending}"
    tick = Fraction(1, RATE)
    # Without frames that wait for later ones, each comes out with its packet.
    options = clip.pop("options", {"bf": "0", "tune": "zerolatency"})
    clip.setdefault("paint", lambda number, size: grey(first + number, size))
    make_clip(path, ticks=range(first, first + count), tick=tick, rate=RATE, options=options, gop=RATE, **clip)
    return path.read_bytes()


class Watcher:
    """Watches a feed on a clock that moves when the test says so, and by itself to each attempt that is planned.

    Attributes:
        told: what the feed said about itself.
    """

    def __init__(self, rules: ReconnectRules | None = None, sink: PacketSink | None = None) -> None:
        self.told = list[FeedStatus]()
        self.watch = FeedWatch(rules, self._clock, self._hear, sink)
        self._now, self._looks, self._look = 100.0, 0, threading.Condition()

    def _clock(self) -> float:
        with self._look:
            self._looks += 1
            self._look.notify_all()
            return self._now

    def _hear(self, status: FeedStatus) -> None:
        self.told.append(status)
        if status.state == "reconnecting":
            self.move((self.watch.rules or ReconnectRules()).wait_before(status.attempt))

    def move(self, seconds: float) -> None:
        """Move the clock."""
        with self._look:
            self._now += seconds

    def wait(self, condition: Callable[[], object]) -> None:
        """Let time pass until `condition` holds: a second whenever the reader, which waits, has looked at the clock."""
        while not condition():
            looks, deadline = self._looks, time.monotonic() + TIMEOUT
            while self._looks < looks + 2 and not condition():
                assert time.monotonic() < deadline
                with self._look:
                    self._look.wait(0.02)
            self.move(1.0)

    @property
    def states(self) -> list[tuple[str, int]]:
        return [(status.state, status.attempt) for status in self.told]


class Visit:
    """One connection of a client to a `FeedServer`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, content: bytes, head: str = "") -> None:
        """Send `content`, after a response's head with the header lines `head` if there are any."""
        if head:
            self._connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        self._connection.sendall(content)

    def close(self) -> None:
        """End the response."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class FeedServer:
    """A server whose test takes each connection and answers it.

    Attributes:
        port: where it listens.
    """

    def __init__(self, listener: socket.socket, read_request: bool = True) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener, self._read_request = listener, read_request
        self._visits: queue.SimpleQueue[Visit] = queue.SimpleQueue()
        self.all: list[Visit] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def visit(self) -> Visit:
        """Return the next connection, once a client makes it."""
        return self._visits.get(timeout=TIMEOUT)

    def _serve(self) -> None:
        # The listener is closed when the test ends.
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if self._read_request:
                    connection.recv(1 << 16)
                self.all.append(Visit(connection))
                self._visits.put(self.all[-1])


HEAD = "Content-Type: video/mp2t\r\nConnection: close"


@contextmanager
def feed_server(port: int = 0) -> Iterator[FeedServer]:
    """Run a `FeedServer` on `port`; 0 for a free one."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = FeedServer(listener)
        try:
            yield server
        finally:
            # The thread that accepts keeps a socket open that is only closed.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for visit in server.all:
                visit.close()


def answering(server: FeedServer, answer: Callable[[Visit], None]) -> None:
    """Have a thread answer the next connection while the test opens it."""

    def serve() -> None:
        # A test may end before it is made.
        with suppress(queue.Empty):
            answer(server.visit())

    threading.Thread(target=serve, daemon=True).start()


def reading(chunks: Iterator[Chunk], count: int) -> Future[list[Chunk]]:
    """Read the next `count` chunks, less at the end, on a thread."""
    done: Future[list[Chunk]] = Future()

    def read() -> None:
        try:
            done.set_result(list(itertools.islice(chunks, count)))
        except BaseException as error:  # noqa: BLE001 - raised where the test waits
            done.set_exception(error)

    threading.Thread(target=read, daemon=True).start()
    return done
