"""Which patches of a stream's video changed since the model was last shown them (option `drop_still`).

TimeChat-Online's differential token drop (arXiv 2504.17343) leaves out video tokens whose patches did not change. Here
a patch is compared with the version of it that is kept, so that a slow drift adds up until it shows.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import PixelConfig, StreamConfig
from streaming_vlm_mlx.stream.spans import Span
from streaming_vlm_mlx.stream.turn_input import TurnInput

Bools = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.float32]

# As the turn that holds a patch: none does.
NEVER = -1


class StillPatches:
    """The last kept version of each merged patch of a stream, and the turn that holds it."""

    def __init__(self) -> None:
        """Begin with nothing shown."""
        self._pixels: Pixels = np.zeros((0, 0), np.float32)
        self._rounds = np.zeros(0, np.int64)

    def leave_out(self, turn: TurnInput, number: int, spans: Iterable[Span], config: StreamConfig) -> TurnInput:
        """Return `turn` without the tokens of its video that did not change, and remember what it shows.

        A token is left out where the root mean square difference between its pixels and their last kept version is at
        most `config.drop_still`. The mean square, not the paper's mean: a ball is a strong change of few pixels.

        Args:
            turn: the input of the turn.
            number: the turn's.
            spans: the kept sequence before the turn. What only a dropped turn showed is shown again.
            config: the stream's settings.
        """
        if config.drop_still is None:
            self._rounds = np.full_like(self._rounds, NEVER)
            return turn
        if turn.features is None or turn.grid is None:
            return turn
        units = config.pixels.merge_size**2
        pixels = np.concatenate([values.reshape(len(values) // units, -1) for values in turn.pixels])
        held = {span.round for span in spans if span.part == "video"}
        kept = self._select(pixels, math.prod(turn.grid[1:]) // units, number, held, config)
        return replace(turn, features=turn.features[mx.array(np.flatnonzero(kept))], kept=kept)

    def _select(self, pixels: Pixels, size: int, number: int, held: set[int], config: StreamConfig) -> Bools:
        """Return which of the merged patches `pixels`, [steps × `size`, values], are kept; `held` turns have video."""
        assert config.drop_still is not None
        if self._pixels.shape != (size, pixels.shape[1]):
            self._pixels = np.zeros((size, pixels.shape[1]), np.float32)
            self._rounds = np.full(size, NEVER)
        is_held = np.isin(self._rounds, [*held])
        kept = np.empty(len(pixels), np.bool_)
        for start in range(0, len(pixels), size):
            now = pixels[start : start + size]
            changed = ~is_held | (_distance(now, self._pixels, config.pixels) > config.drop_still)
            self._pixels[changed], self._rounds[changed] = now[changed], number
            kept[start : start + size] = changed
            is_held |= changed
        return kept


def _distance(pixels: Pixels, others: Pixels, config: PixelConfig) -> npt.NDArray[np.float32]:
    """Return the root mean square difference of each merged patch, in steps of 255, [units]."""
    channels = len(config.image_std)
    difference = (pixels - others).reshape(len(pixels), config.merge_size**2, channels, -1)
    squares = np.einsum("umcx,umcx->uc", difference, difference)
    weights = (255 * np.asarray(config.image_std, np.float32)) ** 2
    mean: Pixels = squares @ weights / np.float32(pixels.shape[1])
    return np.sqrt(mean)
