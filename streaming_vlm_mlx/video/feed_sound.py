"""The packets of a feed's sound, on the clock of its pictures; no decoding."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from av import Packet
from av.audio.stream import AudioStream

from streaming_vlm_mlx.video.source import InputVideo

# Packets that wait for the first picture of their connection, about 20 seconds of them.
MOST_WAITING = 1000
# Seconds by which sound is before or behind the picture beside it at most; more comes of a clock that was set anew.
MOST_APART = 5.0

SoundState = Literal["none", "undecodable", "decodable"]


@dataclass(frozen=True, slots=True, eq=False)
class SoundFormat:
    """What a decoder has to know of a connection's sound; each connection has one of its own.

    Attributes:
        codec: FFmpeg's name of the decoder.
        sample_rate: samples a second; 0 if only the packets say it.
        layout: FFmpeg's name of the channels.
        extradata: what the container says of the codec.
    """

    codec: str
    sample_rate: int
    layout: str
    extradata: bytes | None


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """Encoded sound, and its time in seconds: of its connection, or of the feed."""

    format: SoundFormat
    time: float
    data: bytes

    @property
    def size(self) -> int:
        """What the packet holds, in bytes."""
        return len(self.data)


def sound_state(opened: InputVideo) -> SoundState:
    """Return whether `opened` brings sound, and whether that can be decoded."""
    if opened.sound:
        return "decodable"
    return "undecodable" if opened.container.streams.audio else "none"


def sound_format(stream: AudioStream) -> SoundFormat:
    """Return the format of `stream`."""
    context = stream.codec_context
    return SoundFormat(context.name, context.sample_rate, context.layout.name, context.extradata)


def copy_packet(packet: Packet, form: SoundFormat) -> SoundPacket | None:
    """Return what `packet` of a sound in `form` holds; None if it has no time."""
    ticks = packet.dts if packet.pts is None else packet.pts
    if ticks is None or packet.time_base is None:
        return None
    return SoundPacket(form, float(ticks * packet.time_base), bytes(packet))


class SoundClock:
    """Brings the packets of a feed's sound onto the clock of its pictures, which goes on over connections.

    Packets and pictures come in the order of the connection, so the newest picture says how the times of both differ.
    """

    def __init__(self, hear: Callable[[SoundPacket], None] | None) -> None:
        """Have `hear` called with each packet, at its time of the feed."""
        self._hear = hear
        self._waiting: deque[SoundPacket] = deque(maxlen=MOST_WAITING)
        # Seconds that are added to those of the connection; the feed's times of its first picture and of the newest.
        self._offset: float | None = None
        self._first = self._newest = 0.0

    def begin(self) -> None:
        """Expect a new connection."""
        self._offset = None
        self._waiting.clear()

    def show(self, stamp: float, time: float) -> None:
        """Take note that the picture at `stamp` seconds of the connection is at `time` of the feed."""
        if self._offset is None:
            self._first = time
        self._offset, self._newest = time - stamp, time
        while self._waiting:
            self.take(self._waiting.popleft())

    def take(self, packet: SoundPacket) -> None:
        """Hand on `packet`, at once or with the first picture; what belongs to no picture is dropped."""
        if self._hear is None:
            return
        if self._offset is None:
            self._waiting.append(packet)
            return
        time = packet.time + self._offset
        if time >= self._first and abs(time - self._newest) <= MOST_APART:
            self._hear(replace(packet, time=time))
