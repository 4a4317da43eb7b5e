"""Small pictures of a clip, for a page."""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.pyav_reader import FrameReader

# The largest width and height in pixels: twice what the page shows, for screens with small pixels.
WIDTH, HEIGHT = 520, 390
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """A picture of a clip.

    Attributes:
        time: seconds from the clip's beginning.
        width: pixels.
        height: pixels.
        jpeg: the encoded picture.
    """

    time: float
    width: int
    height: int
    jpeg: bytes

    @property
    def base64(self) -> str:
        """The encoded picture as text."""
        return base64.b64encode(self.jpeg).decode("ascii")


def spread_times(start: float, end: float, most: int) -> tuple[float, ...]:
    """Return at most `most` whole seconds from `start` on, evenly spread over the time to `end`."""
    first, length = math.floor(start + 1e-6), max(math.ceil(end - start - 1e-6), 1)
    count = min(most, length)
    return tuple(max(float(first + number * length // count), start) for number in range(count))


def take_pictures(clip: str, times: Iterable[float]) -> tuple[Picture, ...]:
    """Return the picture that `clip` shows at each of `times`, in order; none where the clip has ended or is a feed.

    Raises:
        SvmError: the clip cannot be read.
    """
    reader = FrameReader(clip)
    try:
        if reader.info.duration is None:
            return ()
        return tuple(filter(None, (_take(reader, time) for time in sorted(set(times)))))
    finally:
        reader.close()


def _take(reader: FrameReader, time: float) -> Picture | None:
    shown = None
    for frame in reader.frames_from(time):
        if frame.time > time and shown is not None:
            break
        shown = frame
    if shown is None or shown.end < time - 1:
        return None
    image = Image.fromarray(reader.rgb(shown.picture))
    image.thumbnail((WIDTH, HEIGHT))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Picture(time, image.width, image.height, file.getvalue())


def check_times(times: Sequence[float], start: float, end: float) -> None:
    """Check that all of `times` are from `start` to `end`.

    Raises:
        SvmError: names the first that is not.
    """
    for time in times:
        if not start <= time < end:
            raise SvmError(f"--at is {time:g}; the report is on {start:g} to {end:g} s.")
