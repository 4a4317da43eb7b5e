"""The player, on a scripted commentator and a clock that the test moves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.tui.stand_ins import Clock, Play, Player, Scripted, program
from tui.app import PlayerApp


@pytest.fixture
def play(tmp_path: Path) -> Play:
    @asynccontextmanager
    async def begin(
        engine: Scripted | None = None, size: tuple[int, int] = (120, 40), **changes: object
    ) -> AsyncIterator[Player]:
        engine, clock = engine or Scripted(), Clock()
        app = PlayerApp(program(lambda note: engine, tmp_path, **changes), clock=clock)  # type: ignore[arg-type]
        async with app.run_test(size=size) as pilot:
            yield Player(app, pilot, clock, engine)

    return begin
