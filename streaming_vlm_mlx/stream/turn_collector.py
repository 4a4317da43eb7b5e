"""Collects the seconds that a turn shows: a style's first turn may have several, each later one has one."""

from dataclasses import dataclass

import mlx.core as mx

from streaming_vlm_mlx.models.positions import Grid


@dataclass(frozen=True)
class TurnInput:
    """What the user turn shows and asks.

    Attributes:
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        grid: patches of the video in time, height and width; None without video.
        features: of the video, [video tokens, width]; None without video.
        question: the viewer's question, else empty.
    """

    start: float
    end: float
    grid: Grid | None
    features: mx.array | None
    question: str = ""


class TurnCollector:
    """Passes on the seconds of a stream as turns: the first ones joined, all later ones one by one."""

    def __init__(self, first_seconds: int) -> None:
        """Join the first `first_seconds` seconds."""
        self._wanted = first_seconds
        self._seconds: list[TurnInput] = []

    @property
    def completes(self) -> bool:
        """Whether the next second completes a turn."""
        return len(self._seconds) + 1 >= self._wanted

    def add(self, second: TurnInput) -> TurnInput | None:
        """Add a second; return the turn that it completes, or None.

        Seconds that were skipped are missing in the turn's video; its times go from its first to its last second.
        """
        self._seconds.append(second)
        return self.rest() if len(self._seconds) >= self._wanted else None

    def rest(self) -> TurnInput | None:
        """Return the turn of the seconds that are waiting, however few; None if there are none."""
        if not self._seconds:
            return None
        seconds, self._seconds, self._wanted = self._seconds, [], 1
        return _join(seconds)


def _join(seconds: list[TurnInput]) -> TurnInput:
    """Return `seconds`, whose videos have one size, as one turn; of several questions the last one."""
    question = next((second.question for second in reversed(seconds) if second.question), "")
    grids = [second.grid for second in seconds if second.grid is not None]
    features = [second.features for second in seconds if second.features is not None]
    grid = (sum(time for time, _, _ in grids), *grids[0][1:]) if grids else None
    joined = features[0] if len(features) == 1 else mx.concatenate(features) if features else None
    return TurnInput(seconds[0].start, seconds[-1].end, grid, joined, question)
