"""Runs the vision tower over the seconds of a stream, at a second's turn or ahead of it."""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

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


class VideoEncoder:
    """The vision tower of one stream, which can hold the features of one second ahead."""

    def __init__(self, model: VisionLanguageModel, clock: Callable[[], float]) -> None:
        """Use the vision tower of `model`; `clock` returns seconds."""
        self._model, self._clock = model, clock
        self._ahead: EncodedVideo | None = None

    def encode_ahead(self, patches: Patches | None) -> None:
        """Run the vision tower over `patches` now, for a later `take` of them."""
        begun = self._clock()
        features = self._encode(patches)
        if features is not None:
            self._ahead = EncodedVideo(patches, features, self._clock() - begun)

    def take(self, patches: Patches | None) -> EncodedVideo:
        """Return the features of `patches`: those encoded ahead, or new ones."""
        ahead, self._ahead = self._ahead, None
        if ahead and ahead.patches is patches:
            return ahead
        return EncodedVideo(patches, self._encode(patches))

    def _encode(self, patches: Patches | None) -> mx.array | None:
        if patches is None or self._model.config.vision_config is None:
            return None
        features = self._model.visual(mx.array(patches.pixel_values), patches.grid_thw)
        mx.eval(features)
        return features
