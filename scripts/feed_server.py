"""A live feed for benchmarks: serves a stream over HTTP on 127.0.0.1."""

import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n"
# Seconds between two parts of a feed that comes bit by bit.
PAUSE = 0.04


@contextlib.contextmanager
def served(content: bytes, rate: float = math.inf) -> Iterator[str]:
    """Send `content` to each client, `rate` bytes a second, and then nothing more; yield the address."""
    connections: list[socket.socket] = []

    def send(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(HEAD)
        begin, sent = time.perf_counter(), 0
        while sent < len(content):
            due = int(min((time.perf_counter() - begin) * rate, len(content))) if rate < math.inf else len(content)
            connection.sendall(content[sent:due])
            sent = due
            time.sleep(PAUSE)

    def serve() -> None:
        # The listener, or the connection of a client that left, is closed.
        with contextlib.suppress(OSError):
            while True:
                connections.append(listener.accept()[0])
                send(connections[-1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/live"
        finally:
            for connection in connections:
                connection.close()
