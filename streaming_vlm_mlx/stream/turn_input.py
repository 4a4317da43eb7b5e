"""What a turn shows: the vision features of its seconds, encoded at their turn or ahead of it, and the question."""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.models.positions import Grid
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.video.image_processor import Patches


@dataclass(frozen=True)
class EncodedVideo:
    """A second's vision features.

    Attributes:
        patches: the pixels that they come from.
        features: [video tokens, width]; None without video or vision tower.
        seconds: of work that was done ahead of the second's turn.
    """

    patches: Patches | None
    features: mx.array | None
    seconds: float = 0.0

    def as_turn(self, start: float, end: float, question: str) -> "TurnInput":
        """Return the second from `start` to `end` as the input of a turn."""
        if self.patches is None or self.features is None:
            return TurnInput(start, end, None, None, question)
        return TurnInput(
            start, end, self.patches.grid_thw, self.features, question, pixels=(self.patches.pixel_values,)
        )


class VideoEncoder:
    """The vision tower of one stream, which can hold the features of one second ahead."""

    def __init__(self, model: VisionLanguageModel, clock: Callable[[], float]) -> None:
        """Use the vision tower of `model`; `clock` returns seconds."""
        self._model, self._clock = model, clock
        self._ahead: EncodedVideo | None = None
        self._beside: mx.Stream | None = None

    def encode_ahead(self, patches: Patches | None, wait: bool = True) -> None:
        """Run the vision tower over `patches` now, for a later `take` of them.

        Args:
            patches: the pixels.
            wait: whether to wait for it; otherwise it runs beside what the device computes meanwhile.
        """
        if self._ahead and self._ahead.patches is patches:
            return
        begun = self._clock()
        if wait:
            features = self._encode(patches)
        else:
            # Work in the stream of decode would hold up the next token.
            self._beside = self._beside or mx.new_stream(mx.default_device())
            with mx.stream(self._beside):
                features = self._encode(patches, mx.async_eval)
        if features is not None:
            self._ahead = EncodedVideo(patches, features, self._clock() - begun)

    def clear(self) -> None:
        """Forget what was encoded ahead."""
        self._ahead = None

    def take(self, patches: Patches | None) -> EncodedVideo:
        """Return the features of `patches`: those encoded ahead, or new ones."""
        ahead, self._ahead = self._ahead, None
        if ahead and ahead.patches is patches:
            mx.eval(ahead.features)
            return ahead
        return EncodedVideo(patches, self._encode(patches))

    def _encode(self, patches: Patches | None, evaluate: Callable[[mx.array], object] = mx.eval) -> mx.array | None:
        if patches is None or self._model.config.vision_config is None:
            return None
        features = self._model.visual(mx.array(patches.pixel_values), patches.grid_thw)
        evaluate(features)
        return features


@dataclass(frozen=True)
class TurnInput:
    """What the user turn shows and asks.

    Attributes:
        start: seconds from the clip's beginning.
        end: seconds from the clip's beginning.
        grid: patches of the video in time, height and width; None without video.
        features: of the video, [video tokens, width]; None without video.
        question: the viewer's question, else empty.
        kept: which tokens of the video `features` belong to, [merged patches]; None for all.
        pixels: the patches of each second of the video.
    """

    start: float
    end: float
    grid: Grid | None
    features: mx.array | None
    question: str = ""
    kept: npt.NDArray[np.bool_] | None = None
    pixels: tuple[npt.NDArray[np.float32], ...] = ()

    @property
    def video_tokens(self) -> int:
        """Tokens of video that are shown."""
        return 0 if self.features is None else int(self.features.shape[0])

    @property
    def still_tokens(self) -> int:
        """Tokens of video that are left out."""
        return 0 if self.kept is None else len(self.kept) - self.video_tokens


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
    pixels = tuple(values for second in seconds for values in second.pixels)
    return TurnInput(seconds[0].start, seconds[-1].end, grid, joined, question, pixels=pixels)
