"""Serves the player's socket on the event loop, so that no client can hold the player up.

What a client sends is handled in small portions, in turn with that of other clients; what it does not read is kept up
to a limit, and then the client is dropped.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from streaming_vlm_mlx.errors import SvmError
from tui.player.controller import PlayerEvent
from tui.player.frame_loader import RateLimiter
from tui.player.ipc.commands import NOTE_RATE, Commands
from tui.player.ipc.protocol import (
    MAX_LINE,
    LineBuffer,
    LineTooLongError,
    RequestError,
    SendQueue,
    encode,
    parse_request,
    reply,
)
from tui.player.ipc.socket_file import SocketFile
from tui.player.screens.player import PlayerScreen

MAX_CLIENTS = 16
# Seconds of a portion of work, and what is done in it: 32 requests, or 2 that are heavy, of all clients together.
PORTION = 0.05
BUDGET, HEAVY = 32, 16
# Times a second that observed values are compared.
TICK_RATE = 10
# Seconds that a client which is dropped has to read why, and bytes that it may send meanwhile: one that is sending gets
# an error from its system instead when the connection is closed at once.
GRACE, MOST_DISCARDED = 2.0, 16 << 20


class Server:
    """Accepts clients and passes on what they command and what they observe."""

    def __init__(self, screen: PlayerScreen, quit_player: Callable[[], None], clock: Callable[[], float]) -> None:
        """Serve `screen`; `quit_player` ends the player soon, `clock` returns seconds."""
        self._quit_player, self._clock, self._note_limiter = quit_player, clock, RateLimiter(clock)
        self.clients: set[Client] = set()
        self.follow(screen)
        self._server: asyncio.Server | None = None
        # Clients with something to handle, the next first.
        self._waiting: deque[Client] = deque()
        self._budget = BUDGET
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accept clients from the socket `listening`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Client(self), sock=listening)

    def follow(self, screen: PlayerScreen) -> None:
        """Serve `screen`, which shows another clip; the clients stay, with all that they observe."""
        self._screen = screen
        self.commands = Commands(screen, self._quit_player, self._clock)
        screen.listeners.append(self._listener(screen))

    def _listener(self, screen: PlayerScreen) -> Callable[[PlayerEvent], None]:
        def tell(event: PlayerEvent) -> None:
            # A clip that was left may still have something to tell.
            if screen is self._screen:
                self.tell(event)

        return tell

    def close(self) -> None:
        """Tell the clients that the player ends, and close all connections without waiting for anything."""
        if self._server:
            self._server.close()
        if self._timer:
            self._timer.cancel()
        for client in tuple(self.clients):
            client.shut_down()

    def tell(self, event: PlayerEvent) -> None:
        """Pass an event of the player on to the clients that observe it."""
        self.commands.take(event)
        observed = {name for client in self.clients for name in client.observed}
        if not observed or (described := self.commands.describe(event)) is None or described[0] not in observed:
            return
        line = encode(described[1])
        for client in tuple(self.clients):
            if described[0] in client.observed:
                client.send(line)

    def tick(self) -> None:
        """Apply settings that wait, and tell the clients what has changed; to be called `TICK_RATE` times a second."""
        self.commands.properties.tick()
        for client in tuple(self.clients):
            self._tell_changes(client)

    def note_drop(self) -> None:
        """Tell the viewer that a client was dropped; not of each of many."""
        if self._note_limiter.allows(NOTE_RATE):
            self._screen.note("a program on the socket does not read and was dropped.")

    def schedule(self, client: "Client") -> None:
        """Handle what `client` has sent, now or in a later portion."""
        self._waiting.append(client)
        self._work()

    def _work(self) -> None:
        while self._waiting and self._budget > 0:
            client = self._waiting.popleft()
            line = client.next_line()
            if line is not None:
                self._waiting.append(client)
                self._budget -= self._handle(client, line)
        if self._timer is None and self._budget < BUDGET:
            self._timer = asyncio.get_running_loop().call_later(PORTION, self._refill)

    def _refill(self) -> None:
        self._timer, self._budget = None, BUDGET
        self._work()

    def _handle(self, client: "Client", line: bytes) -> int:
        """Answer one line, and return its cost."""
        if not line.strip():
            return 1
        try:
            request = parse_request(line)
        except RequestError as error:
            client.send(reply(error.request_id, error=str(error)))
            return 1
        try:
            client.send(reply(request.request_id, self.commands.run(request, client)))
        except SvmError as error:
            client.send(reply(request.request_id, error=str(error)))
        self._tell_changes(client)
        return HEAVY if self.commands.is_heavy(request) else 1

    def _tell_changes(self, client: "Client") -> None:
        for change in self.commands.changes(client):
            client.send(encode(change))


async def open_server(
    file: SocketFile, screen: PlayerScreen, quit_player: Callable[[], None], clock: Callable[[], float]
) -> Server:
    """Serve `screen` on the socket of `file`; `quit_player` ends the player soon, `clock` returns seconds."""
    server = Server(screen, quit_player, clock)
    await server.start(file.socket)
    return server


class Client(asyncio.Protocol):
    """A connection.

    Attributes:
        observed: names of what it follows, each with the value that it was told last.
    """

    def __init__(self, server: Server) -> None:
        self.observed: dict[str, object] = {}
        self._server, self._transport = server, cast(asyncio.Transport, None)
        self._received, self._queue = LineBuffer(), SendQueue()
        # Whether it reads nothing now, has sent everything, and is about to be closed.
        self._blocked = self._finished = self._ending = False
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        # What the system does not take at once waits in the queue, where it can be counted and dropped.
        self._transport.set_write_buffer_limits(high=0)
        count = len(self._server.clients)
        self._server.clients.add(self)
        if count >= 2 * MAX_CLIENTS:
            self._transport.abort()
        elif count >= MAX_CLIENTS:
            self._drop(f"there are {MAX_CLIENTS} clients already")

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """Forget the client."""
        self._ending = True
        self._server.clients.discard(self)

    def data_received(self, data: bytes) -> None:
        """Keep what came, and read on when it is handled."""
        if self._ending:
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self._transport.abort()
        else:
            self._received.feed(data)
            self._transport.pause_reading()
            self._server.schedule(self)

    def eof_received(self) -> bool:
        """Close when all replies are read; whole lines that came before are handled, since they were read before."""
        self._finished = True
        self._flush()
        return True

    def pause_writing(self) -> None:
        """Keep what is sent: the client does not read."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Send what was kept."""
        self._blocked = False
        self._flush()

    def next_line(self) -> bytes | None:
        """Return the next line that the client has sent; None if there is none, after which more is read."""
        if self._ending:
            return None
        try:
            line = self._received.take()
        except LineTooLongError:
            self._drop(f"a line is longer than {MAX_LINE} bytes")
            return None
        if line is None:
            self._transport.resume_reading()
        return line

    def send(self, line: bytes) -> None:
        """Send `line`, or drop a client that has left too much unread."""
        if self._ending:
            return
        if self._queue.put(line):
            self._flush()
        else:
            self._server.note_drop()
            self._drop("too much was left unread")

    def shut_down(self) -> None:
        """Tell that the player ends, and close the connection now; what is not read is lost."""
        if not self._ending and not self._blocked:
            self._transport.write(encode({"event": "shutdown"}))
        self._ending = True
        self._transport.abort()

    def _drop(self, reason: str) -> None:
        """Tell the client why it is dropped, and close the connection when it has read that, or soon."""
        self._ending = True
        self._queue.replace(encode({"event": "dropped", "reason": reason}))
        asyncio.get_running_loop().call_later(GRACE, self._transport.abort)
        self._transport.resume_reading()
        self._flush()

    def _flush(self) -> None:
        """Send what waits, as far as it is taken; then end a connection that is to end."""
        while not self._blocked and (line := self._queue.get()) is not None:
            self._transport.write(line)
        if self._blocked:
            return
        if self._finished:
            self._ending = True
            self._transport.close()
        elif self._ending:
            self._transport.write_eof()
