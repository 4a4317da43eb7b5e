"""A decoded frame as an upright RGB array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import VideoReformatter


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a coded picture is turned for the eye: rows and columns change places first, then sides do."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False


def orientation(matrix: Sequence[int]) -> Orientation:
    """Read a display matrix: nine numbers a b u c d v x y w, a pixel goes to (a x + c y, b x + d y).

    Phones and cameras write quarter turns and mirrors only; another angle becomes the nearest of them.
    """
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


class Developer:
    """Makes upright RGB pictures of one size out of a stream's frames.

    Attributes:
        size: width and height of every picture; frames of another size are scaled to it.
    """

    def __init__(self, first: VideoFrame) -> None:
        """Take size and orientation from the stream's first frame; a stream is not turned on its way."""
        # One for all frames: a frame's own would start threads for each of them.
        self._reformatter = VideoReformatter()
        # PyAV ties a frame and its side data into a knot that waits for the collector, so let it be a small one.
        small = self._reformatter.reformat(first, 16, 16, "gray", threads=1)
        matrix = small.side_data.get("DISPLAYMATRIX")
        # The stubs do not tell that side data are a buffer.
        self._turn = orientation(np.frombuffer(cast(bytes, matrix), np.int32).tolist()) if matrix else Orientation()
        self._coded_size = first.width, first.height
        self.size = self._coded_size[::-1] if self._turn.transpose else self._coded_size

    def rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Return `frame` as uint8 [height, width, 3], upright."""
        coded = self._reformatter.reformat(frame, *self._coded_size, "rgb24", threads=1)
        image = cast(npt.NDArray[np.uint8], coded.to_ndarray())
        if self._turn.transpose:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self._turn.flip_y else 1, :: -1 if self._turn.flip_x else 1]
