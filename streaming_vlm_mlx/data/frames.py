"""Which frames of a clip a record's seconds show, as StreamingVLM's ``LMMDataset`` chooses them.

The first frame within the stretch starts a grid of ``1 / fps`` seconds, and each point of it takes the first frame at
or after it. A player's chunks start their grid at whole seconds instead; the two differ by less than a frame.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.sampling import TOLERANCE, Cursor, Timed

if TYPE_CHECKING:
    from av import VideoFrame

Times = npt.NDArray[np.float64]


def count_seconds(times: Times, start: float, end: float, fps: int, max_frames: int | None = None) -> int:
    """Return how many seconds of conversation the frames at `times` give between `start` and `end`.

    Args:
        times: float64 [frames], seconds, ascending.
        start: of the stretch; a frame at it counts.
        end: of the stretch; a frame at it counts too, and may open one more second.
        fps: frames taken a second; the last second is filled up with its last frame.
        max_frames: what lies behind that many frames is left out.
    """
    first, behind = np.searchsorted(times, [start - TOLERANCE, end + TOLERANCE])
    if first == behind:
        return 0
    frames = math.ceil((float(times[behind - 1]) - float(times[first]) + TOLERANCE) * fps)
    return math.ceil(min(frames, max_frames or frames) / fps)


def read_frames(
    video: Path, start: float, end: float, count: int, fps: int, pixels: PixelConfig
) -> tuple[npt.NDArray[np.uint8], Times]:
    """Decode `count` frames of `video` from `start` on; where none is left before `end`, the last one stands in.

    Returns:
        uint8 [count, height, width, 3], RGB, resized as `pixels` says; float64 [count], each frame's time in seconds.

    Raises:
        SvmError: the video can not be read, or has no frame between `start` and `end`.
    """
    # PyAV takes its time to import, and who counts seconds decodes nothing.
    from streaming_vlm_mlx.video.pixels import resize_frames
    from streaming_vlm_mlx.video.reader import FrameReader

    with closing(FrameReader(str(video))) as reader:
        frames: list[npt.NDArray[np.uint8]] = []
        times: list[float] = []
        for chosen in _choose(reader.frames_from(start), start, end, count, fps):
            if not times or chosen.time > times[-1]:
                picture = resize_frames(reader.rgb(chosen.picture)[None], pixels)
            frames.append(picture)
            times.append(chosen.time)
    if not frames:
        raise SvmError(f"{video} has no frame between {start:g} and {end:g} s; convert its dataset again.")
    return np.concatenate(frames), np.array(times)


def _choose(
    frames: "Iterator[Timed[VideoFrame]]", start: float, end: float, count: int, fps: int
) -> "Iterator[Timed[VideoFrame]]":
    cursor = Cursor((frame for frame in frames if frame.time >= start - TOLERANCE), end + 2 * TOLERANCE)
    first = last = cursor.at(start)
    for number in range(count):
        if first is None or last is None:
            return
        point = first.time + number / fps
        chosen = cursor.at(point)
        # Where none is left the cursor has the run's last frame, but what stands in is the one chosen last.
        last = chosen if chosen and chosen.time >= point - TOLERANCE else last
        yield last
