"""Frames with their times, in order, from any moment of a video on."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt
from av import VideoFrame

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.decoder import Decoder
from streaming_vlm_mlx.video.describe import clip_info, clip_pace
from streaming_vlm_mlx.video.picture import Developer
from streaming_vlm_mlx.video.sampling import LONGEST_STEP, TOLERANCE, Timed, Timeline

# Seconds to step back from a moment, one after the other, while the frames found there all lie behind it.
STEPS_BACK = (0.0, 2.0, 8.0, 32.0)

TimedFrame = Timed[VideoFrame]


class FrameReader:
    """An open video.

    Attributes:
        info: what is known without reading on.
    """

    def __init__(self, name: str) -> None:
        """Open `name` and decode its first frame, which alone tells how the picture is turned.

        Raises:
            SvmError: it can not be opened (see `opening.open_stream`), or no frame of it can be decoded or shown.
        """
        self._decoder = Decoder(name)
        frames = self._decoder.frames()
        first = next(frames, None)
        if first is None:
            self._decoder.close()
            raise SvmError(f"{name} holds no picture that can be decoded; copy or download it again.")
        self._pace = clip_pace(name, self._decoder.opened, first)
        self._developer = Developer(name, first)
        self.info = clip_info(name, self._decoder.opened, self._developer.size, self._pace)
        self._longest_step = LONGEST_STEP + (self.info.duration or 0.0)
        self._timeline = self._new_timeline()
        self._opening: Iterator[TimedFrame] | None = self._timed(chain([first], frames))

    @property
    def skipped(self) -> int:
        """Damaged packets that were passed over so far."""
        return self._decoder.skipped

    def frames_from(self, time: float) -> Iterator[TimedFrame]:
        """Return the frames in order; the first is at or before `time` seconds, or the very first.

        A live feed goes on from where it stands. What an earlier call returned is void.

        Raises:
            SvmError: the file is gone meanwhile, or a feed broke off.
        """
        opening, self._opening = self._opening, None
        live = self.info.duration is None
        if opening is not None and (live or time <= 0):
            return opening
        if live:
            return self._timed(self._decoder.frames())
        return self._sought(time) or self._rewound()

    def rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Return `frame` as uint8 [height, width, 3] of the size that `info` names, RGB, upright."""
        return self._developer.rgb(frame)

    def close(self) -> None:
        """Free the file, and the decoder with its threads; call it from the thread that reads."""
        self._opening = None
        self._decoder.close()

    def _sought(self, time: float) -> Iterator[TimedFrame] | None:
        """Seek; None where the container can not, or always lands behind `time`."""
        for back in STEPS_BACK:
            if self._pace.counted or time <= back or not self._decoder.seek(self._pace.ticks(time - back)):
                return None
            frames = self._decoder.frames()
            first = next(frames, None)
            # Without a key picture to lean on, pictures are full of holes.
            if first is None or first.pts is None or not first.key_frame:
                continue
            if first.pts <= self._pace.ticks(time + TOLERANCE):
                self._timeline = self._new_timeline()
                return self._timed(chain([first], frames))
        return None

    def _rewound(self) -> Iterator[TimedFrame]:
        self._decoder.rewind()
        self._timeline = self._new_timeline()
        return self._timed(self._decoder.frames())

    def _new_timeline(self) -> Timeline:
        return Timeline(self._pace, self._longest_step)

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[TimedFrame]:
        for frame in frames:
            time = self._timeline.seconds(frame.pts)
            if time is not None:
                yield Timed(time, time + min(self._pace.length(frame.duration), self._longest_step), frame)
