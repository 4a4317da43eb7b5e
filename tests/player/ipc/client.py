"""A client of the player's socket, for a test on the player's own event loop."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.player.fakes import TIMEOUT

# Above every line that the player sends.
LONGEST = 8 << 20


class IpcClient:
    """A connection.

    Attributes:
        seen: all events that came.
        events: those that came before a reply and were not asked for yet.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.seen: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._number = 0

    async def read(self) -> dict[str, Any] | None:
        """Return the next line; None when the player has closed the connection."""
        async with asyncio.timeout(TIMEOUT):
            try:
                line = await self._reader.readline()
            except ConnectionResetError:
                return None
        if not line:
            return None
        values: dict[str, Any] = json.loads(line)
        if "event" in values:
            self.seen.append(values)
        return values

    async def reply(self) -> dict[str, Any]:
        """Return the next line that is no event."""
        while values := await self.read():
            if "event" not in values:
                return values
            self.events.append(values)
        raise EOFError

    async def command(self, *words: object) -> Any:
        """Send a command and return the data of its reply; raise ValueError with an error."""
        self._number += 1
        self.send(json.dumps({"command": words, "request_id": self._number}).encode() + b"\n")
        values = await self.reply()
        assert values["request_id"] == self._number
        if values["error"] != "success":
            raise ValueError(values["error"])
        return values["data"]

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def event(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first event that is `wanted`, of those that are kept or come."""
        while True:
            while self.events:
                if wanted(found := self.events.pop(0)):
                    return found
            values = await self.read()
            assert values is not None
            self.events.append(values)

    async def rest(self) -> list[dict[str, Any]]:
        """Return all events until the player closes the connection."""
        while values := await self.read():
            self.events.append(values)
        return self.events


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[IpcClient]:
    reader, writer = await asyncio.open_unix_connection(path, limit=LONGEST)
    try:
        yield IpcClient(reader, writer)
    finally:
        writer.transport.abort()
