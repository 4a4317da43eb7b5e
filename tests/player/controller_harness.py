"""A session without a screen: the controller, on a clock that the test moves."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from streaming_vlm_mlx.sessions.session_log import SessionLog
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped
from tests.player.fakes import Clock, until
from tui.player.controller import Controller, PlayerEvent

T = TypeVar("T")


class ControllerHarness:
    """The controller under test, its clock, its log, and the events that it reported."""

    def __init__(self, controller: Controller, clock: Clock, events: list[PlayerEvent], log: SessionLog) -> None:
        self.controller, self.clock, self.events, self.log = controller, clock, events, log

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, in ticks of a quarter."""
        for _ in range(round(4 * seconds)):
            self.clock.now += 0.25
            self.controller.tick()

    async def until(self, kind: type[T], count: int = 1) -> T:
        """Wait until `count` events of `kind` have come, and return the last."""

        def found() -> list[T]:
            return [event for event in self.events if isinstance(event, kind)]

        await until(lambda: len(found()) >= count)
        return found()[count - 1]

    def done(self) -> list[int]:
        return [event.index for event in self.events if isinstance(event, GenerationResult)]

    def skipped(self) -> list[int]:
        return [event.index for event in self.events if isinstance(event, Skipped)]


# Starts a session; the keywords change it.
StartController = Callable[..., AbstractAsyncContextManager[ControllerHarness]]
