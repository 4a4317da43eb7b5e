"""Video that is encoded again with its commentary drawn on the picture."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from streaming_vlm_mlx.sessions.drawing import SMALLEST, draw_caption
from streaming_vlm_mlx.sessions.fonts import load_font
from streaming_vlm_mlx.sessions.subtitles import Cue
from streaming_vlm_mlx.video.frame_converter import orientation_of
from streaming_vlm_mlx.video.pyav_reader import Decoder, stream_clock
from streaming_vlm_mlx.video.source import no_picture
from streaming_vlm_mlx.video.timestamps import LONGEST_STEP, TimestampReader

# Visually lossless for what was compressed before.
_OPTIONS = {"crf": "18", "preset": "fast"}

Planes = list[npt.NDArray[np.uint8]]


class CaptionBurner:
    """Encodes a clip's video as H.264 of the same size and times, with captions at the bottom of the picture.

    A video that a phone turned is upright. Frames without a plausible time are left out, as when the clip is played.
    """

    def __init__(self, target: OutputContainer, clip: str, cues: Sequence[Cue]) -> None:
        """Add the stream to `target`; `cues`, in order, are what is drawn.

        Raises:
            SvmError: `clip` has no frame that can be decoded, or no font has the letters of `cues`.
        """
        for cue in cues:
            load_font(cue.text, SMALLEST)
        source, first = _first_frame(clip)
        clock, self._turn = stream_clock(source.opened, first), orientation_of(first)
        codec = source.opened.stream.codec_context
        size = first.width, first.height
        self._coded, self._size = size, size[::-1] if self._turn.transpose else size
        # Colour at half the resolution needs even sizes.
        self._format = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        duration = float(source.opened.container.duration or 0) / av.time_base
        self._times, self._time_base = TimestampReader(clock, LONGEST_STEP + duration), clock.time_base
        self._cues, self._caption = list(cues), _Caption()
        self._reformatter, self._last = VideoReformatter(), -1
        rate = Fraction(clock.frame_rate).limit_denominator(1001)
        self.stream: VideoStream = target.add_stream("libx264", rate=rate, options=_OPTIONS)
        self.stream.width, self.stream.height = self._size
        self.stream.pix_fmt, self.stream.codec_context.time_base = self._format, clock.time_base
        self._copy_look(codec)
        source.close()

    def encode(self, packet: "Packet[Any] | None") -> "Iterator[Packet[Any]]":
        """Yield what can be written after a `packet` of the clip's video; for None, all that is left."""
        for frame in _decoded(packet):
            time = self._times.seconds(frame.pts)
            ticks = None if time is None else round(time / self._time_base)
            if time is not None and ticks is not None and ticks > self._last:
                drawn = self._draw(frame, self._cue_at(time))
                drawn.pts, drawn.time_base, self._last = ticks, self._time_base, ticks
                yield from self.stream.encode(drawn)
        if packet is None:
            yield from self.stream.encode(None)

    def _copy_look(self, source: Any) -> None:
        """Give the stream the shape of pixels and the colours of the codec context `source`."""
        codec: Any = self.stream.codec_context
        if aspect := source.sample_aspect_ratio:
            codec.sample_aspect_ratio = 1 / aspect if self._turn.transpose else aspect
        for name in ("color_primaries", "color_trc", "colorspace"):
            setattr(codec, name, getattr(source, name))
        codec.color_range = ColorRange.MPEG

    def _cue_at(self, time: float) -> Cue | None:
        while self._cues and self._cues[0].end <= 1000 * time:
            del self._cues[0]
        return self._cues[0] if self._cues and self._cues[0].start <= 1000 * time else None

    def _draw(self, frame: VideoFrame, cue: Cue | None) -> VideoFrame:
        full = frame.color_range == ColorRange.JPEG
        ranges = {"src_color_range": ColorRange.JPEG, "dst_color_range": ColorRange.MPEG} if full else {}
        frame = self._reformatter.reformat(frame, *self._coded, self._format, **ranges)
        text = cue.text if cue else ""
        if not text and self._coded == self._size and not (self._turn.flip_x or self._turn.flip_y):
            # The encoder chooses the kinds of its pictures itself.
            frame.pict_type = 0
            return frame
        planes = [self._turn.upright(plane) for plane in _planes(frame)]
        if text:
            planes = self._caption.over(planes, text, self._format)
        return _frame(planes, self._format)


class _Caption:
    """The caption that was drawn last."""

    def __init__(self) -> None:
        self._text = ""
        self._planes: Planes = []
        self._alphas: list[npt.NDArray[np.float32]] = []

    def over(self, planes: Planes, text: str, pixel_format: str) -> Planes:
        """Return `planes` with `text` at their bottom."""
        if text != self._text:
            self._text = text
            self._prepare(text, planes[0].shape[1], planes[0].shape[0], pixel_format)
        drawn = []
        for plane, caption, alpha in zip(planes, self._planes, self._alphas, strict=True):
            rows, whole = len(caption), plane.copy()
            whole[-rows:] = np.rint(whole[-rows:] * (1 - alpha) + caption * alpha)
            drawn.append(whole)
        return drawn

    def _prepare(self, text: str, width: int, height: int, pixel_format: str) -> None:
        image = np.asarray(draw_caption(text, width, height))
        colours = VideoFrame.from_ndarray(np.ascontiguousarray(image[..., :3]), format="rgb24")
        self._planes = _planes(colours.reformat(format=pixel_format))
        alpha = (image[..., 3] / 255).astype(np.float32)
        half = alpha[::2, ::2] if pixel_format == "yuv420p" else alpha
        self._alphas = [alpha, half, half]


def _first_frame(clip: str) -> tuple[Decoder, VideoFrame]:
    decoder = Decoder(clip)
    first = next(decoder.frames(), None)
    if first is None:
        problem = no_picture(clip, decoder.opened)
        decoder.close()
        raise problem
    return decoder, first


def _decoded(packet: "Packet[Any] | None") -> list[VideoFrame]:
    """Return the frames that `packet` completes; none for a damaged one."""
    try:
        return packet.decode() if packet is not None else []
    except av.error.InvalidDataError:
        return []


def _planes(frame: VideoFrame) -> Planes:
    """Return luma and the two planes of colour of a frame in yuv420p or yuv444p, each uint8 [height, width]."""
    pixels, height = frame.to_ndarray(), frame.height
    if frame.format.name == "yuv444p":
        return list(pixels)
    return [pixels[:height], *pixels[height:].reshape(2, height // 2, frame.width // 2)]


def _frame(planes: Planes, pixel_format: str) -> VideoFrame:
    if pixel_format == "yuv444p":
        return VideoFrame.from_ndarray(np.stack(planes), format=pixel_format)
    width = planes[0].shape[1]
    flat = np.concatenate([np.ascontiguousarray(plane).reshape(-1) for plane in planes])
    return VideoFrame.from_ndarray(flat.reshape(-1, width), format=pixel_format)
