"""Feeds: a thread reads packets ahead, and a connection that is lost is made again."""

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from av import Packet, VideoFrame
from av.error import FFmpegError
from av.stream import Stream

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.chunk import ClipInfo
from streaming_vlm_mlx.video.feed_sound import SoundClock, SoundPacket, copy_packet, sound_format, sound_state
from streaming_vlm_mlx.video.frame_converter import MOST_PIXELS, FrameConverter
from streaming_vlm_mlx.video.pyav_reader import (
    MICROSECOND,
    Decoder,
    InterruptedFeedError,
    TimedFrame,
    stream_clock,
)
from streaming_vlm_mlx.video.reconnect import FeedStatus, Reconnector, ReconnectRules
from streaming_vlm_mlx.video.source import UNCOMPRESSED, describe_failure, no_picture
from streaming_vlm_mlx.video.timestamps import LONGEST_STEP, StreamClock, TimedPicture, TimestampReader

# What is read ahead at most: bytes, and packets.
MOST_BYTES, MOST_PACKETS = 1 << 26, 6000
# Longest wait for news in seconds of real time, since the clock may be another one.
POLL = 0.1
# Packets in a row without a frame after which the decoder is taken to be the wrong one: the codec changed.
MOST_UNDECODED = 150
# Packets that are remembered to know them again, about two minutes of them.
REMEMBERED = 4000

# Formats: a playlist, and pictures that a camera sends over HTTP, which have no times but those of their arrival.
PLAYLIST, UNCLOCKED = "hls", ("mpjpeg",)

# The pictures of a segment come at once, with nothing between them and the next segment's.
PLAYLIST_RULES = ReconnectRules(stall=30.0, connecting=30.0)


class PacketSink(Protocol):
    """What keeps the packets of a feed."""

    def begin(self, video: Stream, others: tuple[Stream, ...]) -> Callable[[Packet], None]:
        """Return what keeps a packet of a new connection with these streams; that of an earlier one does nothing more.

        Both are called from the thread of the connection.
        """


class Repeats:
    """Knows the packets again that a playlist repeats at a new connection, by their timestamp and content."""

    def __init__(self) -> None:
        self._seen: deque[int] = deque(maxlen=REMEMBERED)
        self._known: frozenset[int] = frozenset()

    def begin(self) -> None:
        """Expect repeated packets, up to the first that is not."""
        self._known = frozenset(self._seen)

    def has(self, packet: Packet) -> bool:
        """Return whether an earlier connection brought `packet`, and remember it."""
        signature = hash((packet.pts, packet.size, zlib.crc32(packet)))
        if signature in self._known:
            return True
        self._known = frozenset()
        self._seen.append(signature)
        return False


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet with its decoder, and whether an earlier connection brought it; an empty packet flushes the decoder."""

    packet: Packet
    decoder: Decoder
    is_repeated: bool = False

    @property
    def size(self) -> int:
        """What the packet holds, in bytes."""
        context = self.decoder.opened.stream.codec_context
        return context.width * context.height * 3 if context.name == UNCOMPRESSED else int(self.packet.size)


@dataclass(frozen=True, slots=True)
class End:
    """The end of a connection: why, and whether no other one can bring more."""

    reason: str
    is_final: bool = False


class Connection:
    """A thread that opens a feed and reads its packets ahead.

    A thread that is blocked in FFmpeg cannot be stopped: a connection that is dropped ends by FFmpeg's own time limit.
    The thread closes what it opened.
    """

    def __init__(
        self,
        open_decoder: Callable[[], Decoder],
        news: threading.Condition,
        clock: Callable[[], float],
        sink: PacketSink | None,
        repeats: Repeats,
        with_sound: bool = False,
    ) -> None:
        """Start the thread; `news`, whose lock guards what arrived, is notified of it."""
        self._open, self._news, self._clock, self._sink, self._repeats = open_decoder, news, clock, sink, repeats
        self._with_sound = with_sound
        self._items: deque[Arrival | SoundPacket | End] = deque()
        self._bytes = 0
        self._dropped = False
        threading.Thread(target=self._run, name="svm-feed", daemon=True).start()

    def take(self) -> Arrival | SoundPacket | End | None:
        """Return what came next, or None if nothing has; with the lock held."""
        item = self._items.popleft() if self._items else None
        if item and not isinstance(item, End):
            self._bytes -= item.size
            self._news.notify_all()
        return item

    def drop(self) -> None:
        """End the thread as soon as it can; what it brought may not be used any more; with the lock held."""
        self._dropped = True
        self._items.clear()
        self._news.notify_all()

    def _run(self) -> None:
        try:
            decoder = self._open()
        except SvmError as error:
            cause = error.__cause__
            self._put(End(describe_failure(cause) if isinstance(cause, FFmpegError) else str(error)))
            return
        try:
            if not self._dropped:
                self._put(self._read(decoder))
            with self._news:
                # The decoder may be in use until then.
                self._news.wait_for(lambda: self._dropped)
        finally:
            decoder.close()

    def _read(self, decoder: Decoder) -> End:
        """Read all packets and return why there are no more."""
        opened = decoder.opened
        if not opened.is_live:
            return End("it is complete", is_final=True)
        kind, stream = opened.container.format.name, opened.stream
        audio = opened.container.streams.audio if self._sink else ()
        others = tuple(sound for sound in audio if sound.codec_context is not None)
        keep = self._sink.begin(stream, others) if self._sink else None
        sound = opened.sound if self._with_sound else None
        form = sound_format(sound) if sound else None
        is_repeated = kind == PLAYLIST
        self._repeats.begin()
        try:
            for packet in decoder.packets(*(others or ((sound,) if sound else ()))):
                is_video = not packet.size or packet.stream is stream
                if packet.size and is_video:
                    is_repeated = kind == PLAYLIST and self._repeats.has(packet)
                    if kind in UNCLOCKED:
                        packet.pts = packet.dts = round(self._clock() / (stream.time_base or MICROSECOND))
                if keep and packet.size and not is_repeated and not self._dropped:
                    keep(packet)
                if is_video:
                    self._put(Arrival(packet, decoder, is_repeated))
                elif form and packet.stream is sound and not is_repeated and (copy := copy_packet(packet, form)):
                    self._put(copy)
                if self._dropped:
                    break
        except InterruptedFeedError as error:
            return End(error.reason)
        # What is served as a file has a size and is over at its end; another server may come back.
        is_whole = kind == "lavfi" or (kind != PLAYLIST and opened.container.size > 0)
        return End("the server closed the connection", is_whole)

    def _put(self, item: Arrival | SoundPacket | End) -> None:
        size = 0 if isinstance(item, End) else item.size
        with self._news:
            self._news.wait_for(lambda: self._dropped or self._has_room(size))
            if not self._dropped:
                self._items.append(item)
                self._bytes += size
                self._news.notify_all()

    def _has_room(self, size: int) -> bool:
        return not self._items or (self._bytes + size <= MOST_BYTES and len(self._items) < MOST_PACKETS)


@dataclass(frozen=True, slots=True)
class FeedWatch:
    """How a feed is watched.

    Attributes:
        rules: when to connect again; None for those that suit the feed.
        clock: returns seconds, and never runs backwards.
        tell: called in the thread that reads with each new attempt, when the feed is back, and at its end.
        sink: keeps the packets; None for nothing.
        hear: called in the thread that reads with each packet of the sound, at its time of the feed, in order; None
            where nobody hears it.
    """

    rules: ReconnectRules | None = None
    clock: Callable[[], float] = time.monotonic
    tell: Callable[[FeedStatus], None] = lambda _: None
    sink: PacketSink | None = None
    hear: Callable[[SoundPacket], None] | None = None


UNWATCHED = FeedWatch()


class FeedReader:
    """Reads the frames of a feed through all its connections, with times that go on over them.

    One thread reads. `status`, `reconnect` and `stop` may be called from any.

    Attributes:
        info: properties of the feed; those of its first connection.
        sound: whether that connection brings sound.
    """

    def __init__(self, decoder: Decoder, most_pixels: int = MOST_PIXELS, watch: FeedWatch = UNWATCHED) -> None:
        """Take over `decoder`, which has just been opened, and wait for its first picture.

        Pictures of more than `most_pixels` are scaled down.

        Raises:
            SvmError: there is no picture.
        """
        self._name, self._watch, self._clock = decoder.name, watch, watch.clock
        is_playlist, self.sound = decoder.opened.container.format.name == PLAYLIST, sound_state(decoder.opened)
        rules = watch.rules or (PLAYLIST_RULES if is_playlist else ReconnectRules())
        self._news, self._repeats = threading.Condition(), Repeats()
        self._stopped, self._told = False, ("live", 0)
        self._ready: deque[TimedFrame] = deque()
        self._next_time = 0.0
        self._ticks: StreamClock | None = None
        self._timestamps: TimestampReader | None = None
        self._sound_clock = SoundClock(watch.hear)
        # Packets since the last frame, and damaged ones of earlier connections.
        self._undecoded, self._damaged = 0, 0
        # No connection is made again before there is a picture.
        self._reconnector = Reconnector(replace(rules, attempts=0), self._clock())
        self._connection: Connection | None = None
        self._decoder = decoder
        self._connect(lambda: decoder)
        first = self._next_frame()
        if first is None:
            self.close()
            raise no_picture(self._name, decoder.opened, self.status.reason)
        self._ready.appendleft(first)
        self._converter = FrameConverter(self._name, first.picture, most_pixels)
        rate = stream_clock(decoder.opened, first.picture).frame_rate
        self.info = ClipInfo(None, *self._converter.size, rate, decoder.opened.stream.codec_context.name)
        self._reconnector = Reconnector(rules, self._clock())

    @property
    def skipped(self) -> int:
        """Damaged packets skipped so far."""
        return self._damaged + self._decoder.skipped

    @property
    def status(self) -> FeedStatus:
        """How the feed is doing now."""
        with self._news:
            return self._reconnector.status(self._clock())

    def reconnect(self) -> None:
        """Connect again at once; after the end, a new call of `frames_from` does so."""
        with self._news:
            self._reconnector.retry(self._clock())
            self._news.notify_all()

    def stop(self) -> None:
        """End a running iteration, also one that waits, and all later ones."""
        with self._news:
            self._stopped = True
            self._news.notify_all()

    def frames_from(self, time: float) -> Iterator[TimedFrame]:
        """Return the frames to come, until the feed has ended; they go on where they are, but not before `time`."""
        self._next_time = max(self._next_time, time)
        return self._frames()

    def rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Return `frame` as uint8 [height, width, 3], RGB, upright, at the size in `info`."""
        return self._converter.rgb(frame)

    def close(self) -> None:
        """Leave the feed; call it from the thread that reads, or after `stop` when that has ended."""
        self.stop()
        with self._news:
            self._drop()

    def _frames(self) -> Iterator[TimedFrame]:
        while frame := self._next_frame():
            yield frame
            with self._news:
                # Whoever rested on a frame waits for the next one only from now on.
                self._reconnector.received(self._clock())
                self._report()

    def _next_frame(self) -> TimedFrame | None:
        """Wait for the next frame; None when the feed has ended or is stopped."""
        while not self._ready:
            arrival = self._wait()
            if arrival is None:
                return None
            if isinstance(arrival, SoundPacket):
                self._sound_clock.take(arrival)
            else:
                self._decode(arrival)
        return self._ready.popleft()

    def _wait(self) -> Arrival | SoundPacket | None:
        """Wait for the next packet, and connect as it is time to; None when the feed has ended or is stopped."""
        with self._news:
            while not self._stopped:
                item = self._connection.take() if self._connection else None
                if isinstance(item, End):
                    self._lose(item)
                elif item:
                    return item
                decision = self._reconnector.decide(self._clock())
                if decision.action != "read":
                    self._drop()
                self._report()
                if decision.action == "end":
                    return None
                if decision.action == "connect":
                    self._connect(lambda: Decoder(self._name))
                self._news.wait(min(decision.timeout, POLL))
        return None

    def _connect(self, open_decoder: Callable[[], Decoder]) -> None:
        self._undecoded, self._timestamps = 0, None
        self._sound_clock.begin()
        watch = self._watch
        self._connection = Connection(
            open_decoder, self._news, self._clock, watch.sink, self._repeats, watch.hear is not None
        )

    def _drop(self) -> None:
        if self._connection:
            self._connection.drop()
            self._connection = None

    def _lose(self, end: End) -> None:
        self._drop()
        self._reconnector.lost(self._clock(), end.reason, end.is_final)

    def _report(self) -> None:
        """Tell a state that is new; a silence alone is none."""
        status = self._reconnector.status(self._clock())
        state = ("live" if status.state == "silent" else status.state), status.attempt
        if state != self._told:
            self._told = state
            self._watch.tell(status)

    def _decode(self, arrival: Arrival) -> None:
        """Make the frames ready that `arrival` completes."""
        decoder = arrival.decoder
        if decoder is not self._decoder:
            self._damaged, self._decoder = self.skipped, decoder
        frames = decoder.decode(arrival.packet)
        self._undecoded = 0 if frames else self._undecoded + 1
        if self._undecoded >= MOST_UNDECODED:
            with self._news:
                self._lose(End("its pictures cannot be decoded any more"))
        if arrival.is_repeated:
            return
        for frame in frames:
            if self._timestamps is None or self._ticks is None:
                clock = stream_clock(decoder.opened, frame)
                is_counted = clock.counted and decoder.opened.container.format.name not in UNCLOCKED
                self._ticks = replace(clock, counted=is_counted)
                self._timestamps = TimestampReader(self._ticks, LONGEST_STEP, self._next_time)
            time = self._timestamps.seconds(frame.pts)
            if time is not None:
                end = time + min(self._ticks.length(frame.duration), LONGEST_STEP)
                self._ready.append(TimedPicture(time, end, frame))
                if frame.pts is not None and not self._ticks.counted:
                    self._sound_clock.show(float(frame.pts * self._ticks.time_base), time)
                self._next_time = time + 1 / self._ticks.frame_rate
