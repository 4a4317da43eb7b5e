"""Decoded frames to upright RGB arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from streaming_vlm_mlx.errors import SvmError

# AVCOL_SPC_UNSPECIFIED: FFmpeg chooses a color space from the picture size.
UNSPECIFIED = 2

# The most pixels of an array, those of cinema's 4K; larger pictures are halved until they have less. A model sees a
# thirtieth of them.
MOST_PIXELS = 4096 * 2304


@dataclass(frozen=True, slots=True)
class Orientation:
    """How to make a coded picture upright: transpose first, then flip."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def upright(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return a view of `picture`, uint8 [height, width, …] as coded, that is upright."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def orientation(matrix: Sequence[int]) -> Orientation:
    """Return the orientation of a display matrix a b u c d v x y w, which maps (x, y) to (a x + c y, b x + d y).

    Phones and cameras write only quarter turns and mirrors; other angles become the nearest of these.
    """
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return the orientation that `frame` states; a frame that is read keeps its memory until it is collected."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV knows only some kinds of side data, and gives none of them where one is of another kind (in a TIFF).
        return Orientation()
    # The stubs do not declare side data as a buffer.
    return orientation(np.frombuffer(cast(bytes, matrix), np.int32).tolist()) if matrix else Orientation()


class FrameConverter:
    """Converts the frames of a stream to upright RGB arrays of one size.

    Attributes:
        size: width and height of every array; frames of another size are scaled.
    """

    def __init__(self, name: str, first: VideoFrame, most_pixels: int = MOST_PIXELS) -> None:
        """Take size and orientation from the first frame of `name`; the orientation of a stream does not change.

        A picture of more than `most_pixels` is halved until it has less.

        Raises:
            SvmError: FFmpeg cannot convert the pixel format.
        """
        self._name = name
        # Shared, because a reformatter per frame starts threads for each frame.
        self._reformatter = VideoReformatter()
        # A frame and its side data form a reference cycle in PyAV, so use a small frame.
        small = self._reformat(first, (16, 16))
        self._turn = orientation_of(small)
        self._coded_size = first.width, first.height
        while self._coded_size[0] * self._coded_size[1] > most_pixels:
            self._coded_size = max(self._coded_size[0] // 2, 1), max(self._coded_size[1] // 2, 1)
        self.size = self._coded_size[::-1] if self._turn.transpose else self._coded_size

    def rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Return `frame` as uint8 [height, width, 3], upright.

        Raises:
            SvmError: FFmpeg cannot convert the pixel format.
        """
        image = cast(npt.NDArray[np.uint8], self._reformat(frame, self._coded_size).to_ndarray())
        return self._turn.upright(image)

    def _reformat(self, frame: VideoFrame, size: tuple[int, int]) -> VideoFrame:
        try:
            return self._reformatter.reformat(frame, *size, "rgb24", threads=1)
        except av.error.FFmpegError:
            # An unknown color space or a damaged tag: approximate colors are better than none.
            frame.colorspace = UNSPECIFIED
        try:
            return self._reformatter.reformat(frame, *size, "rgb24", threads=1)
        except av.error.FFmpegError as error:
            raise SvmError(
                f"{self._name} has frames of format {frame.format.name}, which FFmpeg cannot convert to RGB; "
                "convert it to H.264 in MP4."
            ) from error
