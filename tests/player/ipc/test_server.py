"""Clients that send garbage, floods and half lines, that do not read, and that vanish: the player goes on."""

import asyncio
import json
import os
import random
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.stream.events import TextPiece
from tests.player.fakes import Player, StartPlayer, until, wait
from tests.player.ipc.client import IpcClient, connected
from tests.player.ipc.conftest import StartServed
from tui.player.ipc import server as module
from tui.player.ipc.commands import Commands, Observer
from tui.player.ipc.protocol import MAX_LINE, MAX_WAITING, LineBuffer, LineTooLongError, Request, SendQueue
from tui.player.ipc.server import BUDGET, HEAVY, MAX_CLIENTS, Server

GET = b'{"command": ["get", "position"]}\n'


def server_of(player: Player) -> Server:
    assert player.app.server
    return player.app.server


async def check_alive(player: Player, path: Path) -> None:
    """Check that the player plays on and answers another client."""
    second = len(player.engine.spoken)
    await player.pass_time(1)
    await player.engine.until_spoken(second)
    async with connected(path) as client:
        assert await client.command("get", "position") == player.position


async def last_words(client: IpcClient) -> str:
    """Return why the client was dropped."""
    events = await client.rest()
    assert events[-1]["event"] == "dropped"
    client.writer.transport.abort()
    reason: str = events[-1]["reason"]
    return reason


@pytest.mark.parametrize("data", [b"x" * (4 << 20), b"\x00\xff" * (1 << 20), b"[" * (2 << 20), GET[:-1] * 100_000])
async def test_megabytes_without_an_end_are_dropped(data: bytes, start_served: StartServed, socket_path: Path) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        client.send(GET + data)
        await client.reply()
        assert await last_words(client) == f"a line is longer than {MAX_LINE} bytes"
        await until(lambda: not server_of(p).clients)
        await check_alive(p, socket_path)


async def test_half_a_line_waits_and_its_client_may_vanish(start_served: StartServed, socket_path: Path) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        client.send(b'{"comm')
        await check_alive(p, socket_path)
        client.send(b'and": ["get", "speed"], "request_id": 8}\n{"half')
        assert await client.reply() == {"error": "success", "data": 1.0, "request_id": 8}
        client.writer.transport.abort()
        await until(lambda: not server_of(p).clients)
        await check_alive(p, socket_path)


async def test_a_client_that_has_said_all_is_answered_and_closed(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        client.send(b"\n\n" + 40 * GET + b'{"command": ["pause"]}')
        client.writer.write_eof()
        assert [(await client.reply())["data"] for _ in range(40)] == [0.0] * 40
        assert await client.read() is None
        # Half a line is no command.
        assert "paused" not in p.title


async def test_a_flood_is_answered_in_portions(start_served: StartServed, monkeypatch: pytest.MonkeyPatch) -> None:
    # The next portion never comes.
    monkeypatch.setattr(module, "PORTION", 1e6)
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        client.send(GET * 1000)
        for _ in range(BUDGET):
            await client.reply()
        await p.pass_time(1)
        await p.engine.until_spoken(1)
        read = asyncio.ensure_future(client.reply())
        await wait(p.pilot)
        assert not read.done()
        read.cancel()


async def test_no_more_of_a_flood_is_read_than_is_handled(
    start_served: StartServed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PORTION", 1e6)
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        client.send(GET * 300_000)
        for _ in range(BUDGET):
            await client.reply()
        for _ in range(1000):
            await asyncio.sleep(0)
        # The system's buffers take some of the ten megabytes.
        assert client.writer.transport.get_write_buffer_size() > 9 << 20


async def test_heavy_commands_of_a_flood_are_fewer(start_served: StartServed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTION", 1e6)
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        client.send(b'{"command": ["seek", 5]}\n' * 1000)
        for _ in range(BUDGET // HEAVY):
            await client.reply()
        await wait(p.pilot)
        assert p.position == 5 * BUDGET // HEAVY


async def test_a_flood_leaves_others_their_turn(
    start_served: StartServed, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled, run = list[str](), Commands.run

    def count(self: Commands, request: Request, client: Observer) -> object:
        handled.append(str(request.arguments[0]))
        return run(self, request, client)

    monkeypatch.setattr(module, "PORTION", 0.0)
    monkeypatch.setattr(Commands, "run", count)
    async with start_served() as (p, client), connected(socket_path) as other:
        await p.engine.until_spoken(0)
        client.send(GET * 5000)
        await client.reply()
        assert await other.command("get", "speed") == 1.0
        # The other did not wait for the rest of the flood.
        assert handled.index("speed") < 5000


async def test_a_client_that_does_not_read_is_dropped_and_told(start_served: StartServed, socket_path: Path) -> None:
    async with start_served() as (p, client), connected(socket_path) as other:
        await p.engine.until_spoken(0)
        await client.command("observe", "text")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        server, piece = server_of(p), TextPiece(0, "x" * 10_000)
        sent = 0
        while "does not read" not in p.notice:
            server.tell(piece)
            sent += 1
        # What waits is bounded, beside what the system and this client's own reader take.
        assert MAX_WAITING / 10_100 <= sent <= (MAX_WAITING + (4 << 20)) / 10_000
        assert p.notice == "a program on the socket does not read and was dropped."
        assert await other.command("get", "speed") == 1.0
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await last_words(client) == "too much was left unread"
        await until(lambda: len(server.clients) == 1)
        await check_alive(p, socket_path)


async def test_a_client_that_never_reads_again_is_closed(
    start_served: StartServed, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.0)
    async with start_served() as (p, _):
        await p.engine.until_spoken(0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(socket_path))
            client.sendall(b'{"command": ["observe", "text"]}\n')
            await until(lambda: any(c.observed for c in server_of(p).clients))
            while "does not read" not in p.notice:
                server_of(p).tell(TextPiece(0, "x" * 10_000))
            await until(lambda: len(server_of(p).clients) == 1)
            await check_alive(p, socket_path)


async def test_of_many_that_are_dropped_the_viewer_is_told_once(
    start_served: StartServed, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.0)
    async with start_served() as (p, _):
        await p.engine.until_spoken(0)
        server = server_of(p)
        for _ in range(3):
            async with connected(socket_path) as client:
                await client.command("observe", "text")
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                for _ in range(500):
                    server.tell(TextPiece(0, "x" * 10_000))
                await until(lambda: len(server.clients) == 1)
        assert len(p.notice.splitlines()) == 1


async def test_replies_that_are_not_read_are_bounded_too(start_served: StartServed, socket_path: Path) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        server, name = server_of(p), "x" * 12_000
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(600):
            client.send(json.dumps({"command": ["get", "settings"], "padding": name}).encode() + b"\n")
        # Portions are a matter of time; this is the work of the next ones.
        await until(lambda: "does not read" in p.notice or not server.clients)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await check_alive(p, socket_path)


async def test_there_are_only_so_many_clients(start_player: StartPlayer, socket_path: Path) -> None:
    async with AsyncExitStack() as stack, start_player(ipc=socket_path) as p:
        await p.engine.until_spoken(0)
        clients = [await stack.enter_async_context(connected(socket_path)) for _ in range(MAX_CLIENTS)]
        for client in clients:
            assert await client.command("get", "speed") == 1.0
        async with connected(socket_path) as late:
            assert await last_words(late) == f"there are {MAX_CLIENTS} clients already"
        clients[0].writer.transport.abort()
        await until(lambda: len(server_of(p).clients) < MAX_CLIENTS)
        async with connected(socket_path) as later:
            assert await later.command("get", "speed") == 1.0


async def test_a_flood_of_changes_is_noted_on_few_lines(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        for number in range(40):
            await client.command("set", "speed", (1, 2)[number % 2])
        assert p.notice.splitlines() == ["speed 1×"]


async def test_the_player_ends_beside_clients_that_read_nothing_and_write_without_end(
    start_player: StartPlayer, socket_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        async with start_player(ipc=socket_path) as p:
            await p.engine.until_spoken(0)
            idle, deaf, flood = [await stack.enter_async_context(connected(socket_path)) for _ in range(3)]
            await deaf.command("observe", "events", "text", "position")
            deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
            server = server_of(p)
            for _ in range(60):
                server.tell(TextPiece(0, "x" * 10_000))
            flood.send(GET * 100_000)
            await flood.reply()
        assert await idle.rest() == [{"event": "shutdown"}]
        assert not server.clients


GARBAGE = (
    b"",
    b"\n",
    b"\r\n\x00",
    b"{}\n",
    b'{"command": [[[]]]}\n',
    b'{"command": ["set", "window", {"a": [1e999]}]}\n',
    b'{"command": ["get", "transcript", -1e308, 1e308]}\n',
    b'{"command": ["observe", "events", "text", "figures"]}\n',
    b'{"command": ["seek", 9e9, "absolute-percent"], "request_id": 1}\n',
    b'{"command": ["ask", "\\ud800\\u0000\\u202e"]}\n',
    b'{"command": ["toggle"]}\n',
    b"9" * 6000 + b"\n",
    GET,
)


@pytest.mark.parametrize("seed", range(4))
async def test_clients_that_do_anything_leave_the_player_as_it_was(
    seed: int, start_player: StartPlayer, socket_path: Path
) -> None:
    rng = random.Random(seed)
    async with start_player(ipc=socket_path) as p:
        await p.engine.until_spoken(0)
        for _ in range(20):
            async with connected(socket_path) as client:
                for _ in range(rng.randrange(6)):
                    words = rng.choice(GARBAGE) if rng.random() < 0.7 else rng.randbytes(rng.randrange(200))
                    client.send(words[: rng.randrange(len(words) + 1)] if rng.random() < 0.3 else words)
                    server_of(p).tick()
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
                elif rng.random() < 0.5:
                    client.writer.write_eof()
                    while await client.read():
                        pass
        await until(lambda: not server_of(p).clients)
        async with connected(socket_path) as client:
            assert await client.command("set", "speed", 1) == 1
            await client.command("play")
            assert await client.command("seek", 40, "absolute") == 40
        await p.engine.until_spoken(40)


@given(st.lists(st.tuples(st.sampled_from(["receive", "send", "read"]), st.binary(min_size=1, max_size=40))))
def test_what_is_held_for_a_client_is_bounded(steps: list[tuple[str, bytes]]) -> None:
    received, queue = LineBuffer(16), SendQueue(64)
    for step, data in steps:
        if step == "send" and not queue.put(data):
            queue.replace(b"dropped")
        elif step == "read":
            queue.get()
        elif step == "receive":
            received.feed(data)
            try:
                while received.take() is not None:
                    pass
            except LineTooLongError:
                received = LineBuffer(16)
        assert len(received) <= 16
        assert queue.size <= 64
