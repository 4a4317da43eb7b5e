"""The sound of a live feed: decodes its packets as they come, and fills a track with them."""

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

from streaming_vlm_mlx.audio.clip_track import RATE, ClipTrack, Run
from streaming_vlm_mlx.audio.feeder import BEHIND
from streaming_vlm_mlx.audio.reader import Sound, TempoFilter
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.feed_sound import SoundFormat, SoundPacket, SoundState
from streaming_vlm_mlx.video.pyav_reader import MICROSECOND

# Packets that are kept until they are decoded, some 30 seconds of them.
MOST_PACKETS = 1500
# Packets in a row without sound after which it is taken for undecodable.
MOST_UNDECODED = 100


class FeedSound:
    """Fills a track with a feed's sound.

    `put` and `close` may be called from any thread; `step` from one, which decodes.
    """

    def __init__(self, name: str) -> None:
        """Take the packets of the feed `name`."""
        self._name = name
        self._packets: deque[SoundPacket] = deque(maxlen=MOST_PACKETS)
        self._closed = self._begun = False
        self._track, self._clock = ClipTrack(), _stopped
        self._decoder: PacketDecoder | None = None
        self._tempo: TempoFilter | None = None
        self._run = Run(1, 1.0)
        # Where the sound so far ends, in seconds of the feed.
        self._end = 0.0

    def put(self, packet: SoundPacket) -> None:
        """Keep `packet`, whose time is the feed's; the oldest is dropped where too many wait."""
        if not self._closed:
            self._begun = True
            self._packets.append(packet)

    @property
    def silent(self) -> bool:
        """Whether the feed has brought no sound so far, and did not promise any."""
        return not self._begun

    def open(self, state: SoundState, track: ClipTrack, clock: Callable[[], float]) -> "FeedSound":
        """Fill `track`, whose motions have `clock`, and return what does.

        Raises:
            SvmError: there is sound that cannot be decoded.
        """
        self._track, self._clock = track, clock
        self._begun = self._begun or state == "decodable"
        if state == "undecodable":
            self.close()
            raise self._undecodable()
        return self

    def step(self) -> bool:
        """Decode a packet, if there is one, and return whether there was.

        Raises:
            SvmError: none can be decoded; the next step tries again.
        """
        try:
            packet = self._packets.popleft()
        except IndexError:
            return False
        if self._decoder is None or self._decoder.format is not packet.format:
            self._decoder = PacketDecoder(packet.format)
        for time, frame in self._decoder.decode(packet):
            for sound in self._convert(time, frame):
                self._add(sound)
        if self._decoder.undecoded == MOST_UNDECODED:
            raise self._undecodable()
        return True

    def close(self) -> None:
        """Drop what waits, and all that comes."""
        self._closed = True
        self._packets.clear()

    def _convert(self, time: float, frame: AudioFrame) -> Iterator[Sound]:
        if self._tempo is None or not self._tempo.continues(frame, time):
            if self._tempo:
                yield from self._tempo.convert(None)
            self._tempo = TempoFilter(frame, time, 1.0)
        yield from self._tempo.convert(frame)

    def _add(self, sound: Sound) -> None:
        """Add `sound`, without what was heard before: a new connection may bring it again."""
        early = max(round((self._end - sound.time) * RATE), 0)
        samples = sound.samples[early:]
        if len(samples):
            time = sound.time + early / RATE
            keep_from = self._track.motion.reached(self._clock()) - BEHIND
            self._run = self._track.run = self._run.add(time, samples, keep_from)
            self._end = time + len(samples) / RATE

    def _undecodable(self) -> SvmError:
        return SvmError(f"{self._name} has sound that this FFmpeg cannot decode; ask for AAC.")


class PacketDecoder:
    """Decodes the packets of one connection.

    Attributes:
        format: of the packets.
        undecoded: packets in a row that gave no sound.
    """

    def __init__(self, form: SoundFormat) -> None:
        """Prepare for packets in `form`."""
        self.format, self.undecoded = form, 0
        context = self._context = cast("AudioCodecContext", av.CodecContext.create(form.codec, "r"))
        context.extradata = form.extradata
        if form.sample_rate:
            context.sample_rate = form.sample_rate
        if form.layout:
            context.layout = form.layout

    def decode(self, packet: SoundPacket) -> list[tuple[float, AudioFrame]]:
        """Return the frames that `packet` completes, with their times; a damaged packet gives none."""
        encoded = av.Packet(packet.data)
        encoded.time_base = MICROSECOND
        encoded.pts = round(packet.time / MICROSECOND)
        try:
            frames = self._context.decode(encoded)
        except av.error.FFmpegError:
            frames = []
        self.undecoded = 0 if frames else self.undecoded + 1
        timed, following = [], packet.time
        for frame in frames:
            time = following if frame.pts is None else float(frame.pts * Fraction(frame.time_base or MICROSECOND))
            following = time + frame.samples / frame.sample_rate
            timed.append((time, frame))
        return timed


def _stopped() -> float:
    return 0.0
