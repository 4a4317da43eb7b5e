"""A clip with a session's commentary: as a subtitle track, spoken in a sound track, drawn on the picture."""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.subtitle import SubtitleSet

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.audio.clip_track import RATE
from streaming_vlm_mlx.audio.commentary import BLOCK, SoundTimeline, Speak, mix, place_clip, place_speech
from streaming_vlm_mlx.audio.reader import open_sound
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.burning import CaptionBurner
from streaming_vlm_mlx.sessions.subtitles import Cue, cues, export_mark, srt
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.video.source import InputVideo, open_video_stream

# Called with the seconds of the clip that are done, and those of all of it.
Progress = Callable[[float, float], None]
# Bits a second of the sound track with commentary.
_BIT_RATE = 192_000


@dataclass(frozen=True)
class Mp4Settings:
    """What an MP4 holds.

    Attributes:
        language: of the commentary, as ISO 639-2.
        per_second: a subtitle for each second, not for each sentence.
        speak: speaks the commentary in a second sound track, over the lowered sound of the clip; None leaves it out.
        burn: draw the commentary on the picture, which is encoded again.
    """

    language: str = "eng"
    per_second: bool = False
    speak: Speak | None = None
    burn: bool = False


def write_mp4(
    path: Path,
    clip: str,
    seconds: Iterable[GenerationResult],
    settings: Mp4Settings = Mp4Settings(),
    progress: Progress = lambda *_: None,
) -> None:
    """Write `clip` with a subtitle track to `path`, atomically; players show the track when the viewer selects it.

    Picture and sound are copied unchanged, unless `settings` has the commentary drawn. Times count from the clip's
    first picture, as in the player.

    Args:
        path: of the new file.
        clip: path of the video.
        seconds: the commentary.
        settings: what the file holds.
        progress: told how far it is.

    Raises:
        SvmError: `clip` cannot be read, has a codec that MP4 does not support, or `path` cannot be written; or the
            commentary cannot be spoken.
    """
    seconds = list(seconds)
    source = open_video_stream(clip)
    try:
        with replacing(path) as part, av.open(str(part), "w", format="mp4") as target:
            target.metadata["comment"] = export_mark(clip)
            _write(source, target, clip, seconds, settings, progress)
    except (av.error.FFmpegError, ValueError) as error:
        raise SvmError(f"{clip} cannot be put into an MP4 file: {error}. Export subtitles (.vtt, .srt).") from error
    finally:
        source.container.close()


def _write(
    source: InputVideo,
    target: OutputContainer,
    clip: str,
    seconds: Sequence[GenerationResult],
    settings: Mp4Settings,
    progress: Progress,
) -> None:
    """Write all tracks, in step; the container sorts the packets by time."""
    said = [cue for cue in cues(seconds, settings.per_second) if cue.text]
    container, video = source.container, source.stream
    origin = _origin(source)
    length = _length(container, origin)
    chosen = [stream for stream in container.streams if stream.type in ("video", "audio")]
    burner = CaptionBurner(target, clip, said) if settings.burn else None
    if burner:
        # Other pictures, such as a cover, have no commentary.
        chosen = [stream for stream in chosen if stream is video or stream.type == "audio"]
    copies = {s.index: _Copy(target, s, origin) for s in chosen if not burner or s is not video}
    track = _CommentaryTrack(target, clip, length, said, settings) if settings.speak else None
    subtitles = srt(seconds, per_second=settings.per_second)
    for cue in _cues(subtitles, target, settings.language) if subtitles else ():
        target.mux(cue)
    done = reached = 0.0
    packet: Packet[Any]
    for packet in container.demux(chosen):
        time = None if packet.dts is None else float(packet.dts * packet.time_base - origin)
        if packet.pts is not None:
            reached = max(reached, float((packet.pts + (packet.duration or 0)) * packet.time_base - origin))
        if burner and packet.stream is video:
            target.mux(list(burner.encode(packet)))
        else:
            target.mux(list(copies[packet.stream.index].take(packet)))
        if time is not None and time > done:
            done = time
            if track:
                target.mux(list(track.until(done)))
            progress(min(done, length), length)
    if burner:
        target.mux(list(burner.encode(None)))
    if track:
        target.mux(list(track.finish(reached)))
        track.close()
    progress(length if length < math.inf else done, length)


def _origin(source: InputVideo) -> Fraction:
    """Return the timestamp, in seconds, of the clip's first picture."""
    stream = source.stream
    return (stream.start_time or 0) * (stream.time_base or Fraction(1))


def _length(container: InputContainer, origin: Fraction) -> float:
    """Return the seconds from the clip's first picture to its end; infinity where the file does not say."""
    if not container.duration:
        return math.inf
    return float(Fraction((container.start_time or 0) + container.duration, av.time_base) - origin)


class _Copy:
    """A stream that is copied; its times become those of the clip."""

    def __init__(self, target: OutputContainer, source: Stream, origin: Fraction) -> None:
        self._stream: Any = target.add_stream_from_template(source)
        self._origin = origin
        # A demuxer that has to guess when packets are decoded does so from the third one on.
        self._early: list[Packet[Any]] = []
        self._is_timed = False

    def take(self, packet: "Packet[Any]") -> "Iterator[Packet[Any]]":
        """Yield the packets that can be written now; one without any time is left out, and so is the empty last one."""
        is_last = not packet.size and packet.dts is None
        if not self._is_timed and packet.dts is None and not is_last:
            self._early += [packet] if packet.pts is not None else []
            return
        if self._early:
            shown = min(early.pts for early in self._early if early.pts is not None)
            following = shown if packet.dts is None else packet.dts
            for count, early in enumerate(reversed(self._early), 1):
                early.dts = following - count * max(early.duration or 1, 1)
        self._is_timed = True
        for timed in (*self._early, packet):
            if timed.dts is not None:
                ticks = round(self._origin / timed.time_base)
                timed.dts -= ticks
                timed.pts = None if timed.pts is None else timed.pts - ticks
                timed.stream = self._stream
                yield timed
        self._early = []


class _CommentaryTrack:
    """The sound track with spoken commentary over the clip's lowered sound."""

    def __init__(
        self,
        target: OutputContainer,
        clip: str,
        length: float,
        said: Sequence[Cue],
        settings: Mp4Settings,
    ) -> None:
        assert settings.speak
        self._reader = open_sound(clip)
        sound = place_clip(self._reader) if self._reader else iter(())
        phrases = [(cue.start / 1000, cue.text) for cue in said]
        speech = place_speech(phrases, length, settings.speak)
        self._blocks, self._position, self._length = mix(SoundTimeline(sound), SoundTimeline(speech)), 0, length
        self._stream: AudioStream = target.add_stream("aac", rate=RATE, layout="stereo")
        self._stream.bit_rate = _BIT_RATE
        self._stream.metadata["language"] = settings.language
        self._stream.metadata["title"] = "Commentary"

    def until(self, time: float) -> "Iterator[Packet[Any]]":
        """Yield the packets up to `time` seconds of the clip."""
        while self._position < min(time, self._length) * RATE:
            # The encoder takes each channel by itself.
            planes = next(self._blocks).T.copy()
            frame = AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, self._position, Fraction(1, RATE)
            self._position += BLOCK
            yield from self._stream.encode(frame)

    def finish(self, end: float) -> "Iterator[Packet[Any]]":
        """Yield the last packets, up to `end` seconds."""
        yield from self.until(end)
        yield from self._stream.encode(None)

    def close(self) -> None:
        """Close the clip."""
        if self._reader:
            self._reader.close()


def _cues(subtitles: str, target: OutputContainer, language: str) -> "Iterator[Packet[Any]]":
    """Yield a packet for each cue: FFmpeg reads the SubRip text and encodes it as MP4 text."""
    # The stubs do not know that this codec has a subtitle stream.
    stream: Any = target.add_stream("mov_text")
    stream.metadata["language"] = language
    with av.open(io.BytesIO(subtitles.encode("utf-8")), format="srt") as source:
        decoder = source.streams.subtitles[0].codec_context
        for packet in source.demux():
            for shown in packet.decode() if packet.size else ():
                # The decoder has its header only after the first packet.
                stream.codec_context.subtitle_header = decoder.subtitle_header
                stream.codec_context.time_base = packet.time_base
                cue = stream.codec_context.encode_subtitle(
                    SubtitleSet.create(shown.ass, 0, packet.duration, packet.pts)
                )
                cue.stream, cue.time_base, cue.duration = stream, packet.time_base, packet.duration
                yield cue
