"""A player with a socket, and a client of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.player.fakes import Player, StartPlayer
from tests.player.ipc.client import IpcClient, connected

StartServed = Callable[..., AbstractAsyncContextManager[tuple[Player, IpcClient]]]


@pytest.fixture
def start_served(start_player: StartPlayer, socket_path: Path) -> StartServed:
    """Start a player with a socket, and connect a client."""

    @asynccontextmanager
    async def begin(*args: object, **changes: object) -> AsyncIterator[tuple[Player, IpcClient]]:
        async with start_player(*args, ipc=socket_path, **changes) as player, connected(socket_path) as client:
            yield player, client

    return begin
