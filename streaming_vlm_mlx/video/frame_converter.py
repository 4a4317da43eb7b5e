"""A decoded frame as an upright RGB array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from streaming_vlm_mlx.errors import SvmError

# AVCOL_SPC_UNSPECIFIED, for which FFmpeg goes by the picture's size.
UNSPECIFIED = 2


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


class FrameConverter:
    """Makes upright RGB pictures of one size out of a stream's frames.

    Attributes:
        size: width and height of every picture; frames of another size are scaled to it.
    """

    def __init__(self, name: str, first: VideoFrame) -> None:
        """Take size and orientation from the first frame of `name`; a stream is not turned on its way.

        Raises:
            SvmError: the frame is of a kind that FFmpeg cannot show.
        """
        self._name = name
        # One for all frames: a frame's own would start threads for each of them.
        self._reformatter = VideoReformatter()
        # PyAV ties a frame and its side data into a knot that waits for the collector, so let it be a small one.
        small = self._reformat(first, (16, 16))
        matrix = small.side_data.get("DISPLAYMATRIX")
        # The stubs do not tell that side data are a buffer.
        self._turn = orientation(np.frombuffer(cast(bytes, matrix), np.int32).tolist()) if matrix else Orientation()
        self._coded_size = first.width, first.height
        self.size = self._coded_size[::-1] if self._turn.transpose else self._coded_size

    def rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Return `frame` as uint8 [height, width, 3], upright.

        Raises:
            SvmError: the frame is of a kind that FFmpeg cannot show.
        """
        image = cast(npt.NDArray[np.uint8], self._reformat(frame, self._coded_size).to_ndarray())
        if self._turn.transpose:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self._turn.flip_y else 1, :: -1 if self._turn.flip_x else 1]

    def _reformat(self, frame: VideoFrame, size: tuple[int, int]) -> VideoFrame:
        try:
            return self._reformatter.reformat(frame, *size, "rgb24", threads=1)
        except av.error.FFmpegError:
            # Colours that it does not know, or a damaged tag: nearly right ones are better than none.
            frame.colorspace = UNSPECIFIED
        try:
            return self._reformatter.reformat(frame, *size, "rgb24", threads=1)
        except av.error.FFmpegError as error:
            raise SvmError(
                f"{self._name} holds pictures of a kind ({frame.format.name}) that FFmpeg cannot turn into RGB; "
                "convert it to H.264 in MP4."
            ) from error
