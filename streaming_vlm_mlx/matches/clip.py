"""Pictures to an H.264 clip."""

from collections.abc import Iterable
from pathlib import Path

import av

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.matches.film import Pixels

SECONDS_A_KEYFRAME = 2


def write_clip(path: Path, frames: Iterable[Pixels], size: tuple[int, int], fps: int, crf: int) -> None:
    """Replace `path` with an mp4 of `frames`; one thread encodes, so that the same frames give the same bytes.

    Args:
        path: the clip.
        frames: uint8 [height, width, 3] each, RGB.
        size: width and height, both even.
        fps: frames a second.
        crf: constant rate factor, higher is coarser.

    Raises:
        SvmError: the folder can not be written, or the disk is full.
    """
    with replacing(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "veryfast", "g": str(fps * SECONDS_A_KEYFRAME)}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
