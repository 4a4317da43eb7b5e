"""A live feed: its seconds in real time, and what the controller needs of its connection."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tui.player.clip import ClipSeconds

if TYPE_CHECKING:
    from streaming_vlm_mlx.video.chunk import Chunk
    from streaming_vlm_mlx.video.reconnect import FeedStatus
    from streaming_vlm_mlx.video.source import Source


class LiveFeed(Protocol):
    """The connection of a feed; every method may be called from any thread and returns at once."""

    @property
    def status(self) -> "FeedStatus":
        """How the feed is doing now."""

    def reconnect(self) -> None:
        """Connect again now, also after the end."""

    def stop(self) -> None:
        """End a read that waits."""


class Recording(Protocol):
    """A feed that is kept in files."""

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have `listener` called, from any thread, when nothing is kept any more."""

    def close(self) -> list[Path]:
        """Finish the files and return their paths."""


class Turns:
    """When each second of a feed is shown: a second after the one before it, however early it is there.

    A playlist brings many seconds at once. A second that is late moves all later ones.
    """

    def __init__(self) -> None:
        self._next: float | None = None

    def wait(self, now: float) -> float:
        """Return for how long the second that is there `now` has to wait for its turn, in seconds."""
        turn = now if self._next is None else max(self._next, now)
        self._next = turn + 1.0
        return turn - now


class FeedSeconds(ClipSeconds):
    """The seconds of a feed, each when it is over and its turn has come."""

    def __init__(
        self,
        source: "Source",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Read `source`; `sleep` waits for as many seconds of `clock`."""
        super().__init__(source)
        self._clock, self._sleep, self._turns = clock, sleep, Turns()

    def read(self, number: int) -> "Chunk | None":
        """Return the next second, whatever the `number`; None where the feed has ended.

        Raises:
            SvmError: the feed cannot be read.
        """
        chunk = super().read(number)
        if chunk is not None:
            self._sleep(self._turns.wait(self._clock()))
        return chunk
