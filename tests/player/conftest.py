"""The player on fakes and a clock that the test moves, with its screen and without."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streaming_vlm_mlx.sessions.session_log import SessionLog
from tests.player.controller_harness import ControllerHarness, StartController
from tests.player.fakes import DURATION, RECORD, Blank, Clock, Player, Scripted, StartPlayer, spec
from tui.player.app import PlayerApp
from tui.player.controller import Commentator, Controller, PlayerEvent
from tui.player.ipc.socket_file import SocketFile
from tui.player.pace import Pace
from tui.player.playhead import Playhead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def head(clock: Clock) -> Playhead:
    return Playhead(clock, DURATION)


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path that does not exist, short enough for a socket on every system."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder / "player.sock"
    shutil.rmtree(folder)


@pytest.fixture
def start_player(tmp_path: Path) -> StartPlayer:
    @asynccontextmanager
    async def begin(
        engine: Scripted | None = None,
        size: tuple[int, int] = (120, 40),
        ipc: Path | None = None,
        **changes: object,
    ) -> AsyncIterator[Player]:
        engine, clock = engine or Scripted(), Clock()
        app = PlayerApp(spec(lambda note: engine, tmp_path, **changes), clock=clock, auto_tick=False)  # type: ignore[arg-type]
        if ipc:
            app.socket_file = SocketFile(ipc)
        async with app.run_test(size=size) as pilot:
            player = Player(app, pilot, clock, engine)
            player.screen.presenter.tick()
            yield player

    return begin


@pytest.fixture
def start_controller(tmp_path: Path) -> StartController:
    @asynccontextmanager
    async def begin(
        engine: Commentator | Callable[[], Commentator],
        seconds: Blank | None = None,
        pace: Pace = "live",
        start: float = 0.0,
        loop: bool = False,
    ) -> AsyncIterator[ControllerHarness]:
        clock, events = Clock(), list[PlayerEvent]()
        seconds = seconds or Blank()
        head = Playhead(clock, seconds.duration, start)
        log = SessionLog(RECORD, [tmp_path / "game"], lambda text: None)
        make = engine if callable(engine) else lambda: engine
        controller = Controller(make, seconds, head, log, events.append, pace, loop)
        task = asyncio.create_task(controller.run())
        try:
            yield ControllerHarness(controller, clock, events, log)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            controller.close()

    return begin
