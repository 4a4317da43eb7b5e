"""What an open stream and its first frame tell of a clip."""

from fractions import Fraction

from av import VideoFrame

from streaming_vlm_mlx.video.decoder import Decoder
from streaming_vlm_mlx.video.opening import Opened, is_file
from streaming_vlm_mlx.video.sampling import LONGEST_STEP, Pace
from streaming_vlm_mlx.video.source import ClipInfo

# For a stream that names no rate; FFmpeg's own assumption for raw video.
DEFAULT_RATE = 25

# Ticks in which a container (not its streams) counts.
MICROSECOND = Fraction(1, 1_000_000)

# AVFMT_NOTIMESTAMPS in FFmpeg's avformat.h: what the demuxer of such a format tells of time is made up.
NO_TIMESTAMPS = 0x80


def clip_pace(name: str, opened: Opened, first: VideoFrame) -> Pace:
    """Return how the stream counts time; 0 seconds is its first presentable timestamp."""
    stream = opened.stream
    starts = [first.pts]
    # A file whose first pictures are damaged keeps its clock; what a feed says of its start is seldom true.
    if is_file(name):
        starts.append(stream.start_time)
    origin = min((pts for pts in starts if pts is not None), default=0)
    counted = first.pts is None or bool(opened.container.format.flags & NO_TIMESTAMPS)
    return Pace(stream.time_base or MICROSECOND, _rate(stream.guessed_rate, stream.average_rate), origin, counted)


def _rate(*rates: Fraction | None) -> float:
    """Return the first rate that can be true; damage makes some of a frame a day."""
    return float(next((rate for rate in rates if rate and rate * Fraction(LONGEST_STEP) > 1), DEFAULT_RATE))


def clip_info(name: str, opened: Opened, size: tuple[int, int], pace: Pace) -> ClipInfo:
    """Return what is known of the clip, whose upright pictures have `size`, without reading on."""
    width, height = size
    return ClipInfo(
        duration=_duration(name, opened, pace),
        width=width,
        height=height,
        frame_rate=pace.frame_rate,
        codec=opened.stream.codec_context.name,
    )


def _duration(name: str, opened: Opened, pace: Pace) -> float | None:
    stream, container = opened.stream, opened.container
    # Of a raw stream FFmpeg guesses the duration from the bit rate, and badly.
    if stream.duration and not pace.counted:
        return float(stream.duration * pace.time_base)
    if container.duration and not pace.counted:
        start = container.start_time or 0
        return float((start + container.duration) * MICROSECOND - pace.origin * pace.time_base)
    return _measured(name, pace) if is_file(name) else None


def _measured(name: str, pace: Pace) -> float:
    """Read the packets to the end, none decoded: browsers and recorders that broke off write no duration."""
    decoder = Decoder(name)
    try:
        spans = [(p.pts, p.duration or 0) for p in decoder.packets() if p.size]
    finally:
        decoder.close()
    if pace.counted:
        return len(spans) / pace.frame_rate
    end = max(pts + length for pts, length in spans if pts is not None)
    return float((end - pace.origin) * pace.time_base)
