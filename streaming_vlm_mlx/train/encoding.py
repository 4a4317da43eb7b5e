"""A vision tower that stands still, at work where frames are decoded: each window is looked at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.backend import prepare
from streaming_vlm_mlx.config import VisionConfig
from streaming_vlm_mlx.data.loading import Encoder, Features, PixelValues


@dataclass(frozen=True)
class Tower:
    """A tower as it travels to another process.

    Attributes:
        config: its sizes.
        weights: its parameters by name, float32.
    """

    config: VisionConfig
    weights: dict[str, npt.NDArray[np.float32]]

    def __call__(self) -> Encoder:
        """Build the tower in this process; return what looks with it."""
        prepare()
        import mlx.core as mx

        from streaming_vlm_mlx.model.vision import VisionTower

        tower = VisionTower(self.config)
        tower.load_weights([(name, mx.array(array)) for name, array in self.weights.items()])

        def encode(pixel_values: PixelValues, grid_thw: tuple[int, int, int]) -> Features:
            return np.array(tower(mx.array(pixel_values), grid_thw).astype(mx.float16))

        return encode
