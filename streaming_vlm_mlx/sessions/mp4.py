"""A clip with a session's commentary as its subtitle track; picture and sound are copied unchanged."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.subtitles.subtitle import SubtitleSet

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.subtitles import export_mark, srt
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.video.source import open_video_stream


def write_mp4(
    path: Path, clip: str, seconds: Iterable[GenerationResult], language: str = "eng", per_second: bool = False
) -> None:
    """Write `clip` with a subtitle track to `path`, atomically; players show the track when the viewer selects it.

    Args:
        path: of the new file.
        clip: path of the video.
        seconds: the commentary.
        language: of the commentary, as ISO 639-2.
        per_second: write a subtitle for each second, not for each sentence.

    Raises:
        SvmError: `clip` cannot be read, has a codec that MP4 does not support, or `path` cannot be written.
    """
    source = open_video_stream(clip).container
    try:
        with replacing(path) as part, av.open(str(part), "w", format="mp4") as target:
            target.metadata["comment"] = export_mark(clip)
            _copy(source, target, srt(seconds, per_second=per_second), language)
    except (av.error.FFmpegError, ValueError) as error:
        raise SvmError(f"{clip} cannot be put into an MP4 file: {error}. Export subtitles (.vtt, .srt).") from error
    finally:
        source.close()


def _copy(source: InputContainer, target: OutputContainer, subtitles: str, language: str) -> None:
    """Write the cues, then the packets of `source`; the container sorts them by time."""
    chosen = [stream for stream in source.streams if stream.type in ("video", "audio")]
    copies = {stream.index: target.add_stream_from_template(stream) for stream in chosen}
    for cue in _cues(subtitles, target, language) if subtitles else ():
        target.mux(cue)
    packet: Packet[Any]
    for packet in source.demux(chosen):
        # Skip the empty packet at the end, and packets without a time.
        if packet.dts is not None:
            packet.stream = copies[packet.stream.index]
            target.mux(packet)


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
