"""The player on a scripted commentator and a clock that the test moves, with its screen and without."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.player.controller_harness import Watch, Watching
from tests.player.fakes import RECORD, Blank, Clock, Play, Player, Scripted, spec
from tui.player.app import PlayerApp
from tui.player.controller import Commentator, Controller, PlayerEvent
from tui.player.playhead import Pace, Pacer, Playhead
from tui.player.session_log import SessionLog


@pytest.fixture
def play(tmp_path: Path) -> Play:
    @asynccontextmanager
    async def begin(
        engine: Scripted | None = None, size: tuple[int, int] = (120, 40), **changes: object
    ) -> AsyncIterator[Player]:
        engine, clock = engine or Scripted(), Clock()
        app = PlayerApp(spec(lambda note: engine, tmp_path, **changes), clock=clock)  # type: ignore[arg-type]
        async with app.run_test(size=size) as pilot:
            yield Player(app, pilot, clock, engine)

    return begin


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    @asynccontextmanager
    async def begin(
        engine: Commentator | Callable[[], Commentator],
        seconds: Blank | None = None,
        pace: Pace = "live",
        start: float = 0.0,
        loop: bool = False,
    ) -> AsyncIterator[Watching]:
        clock, told = Clock(), list[PlayerEvent]()
        seconds = seconds or Blank()
        head = Playhead(clock, seconds.duration, start)
        log = SessionLog(RECORD, [tmp_path / "game"], lambda text: None)
        make = engine if callable(engine) else lambda: engine
        pacer = Pacer(head, pace, 0.0 if seconds.duration else 1.0)
        controller = Controller(make, seconds, head, pacer, log, told.append, loop)
        task = asyncio.create_task(controller.run())
        try:
            yield Watching(controller, clock, told, log)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            controller.close()

    return begin
