"""The MP4 with spoken commentary, read back with FFmpeg."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streaming_vlm_mlx.audio.clip_track import RATE, Samples
from streaming_vlm_mlx.audio.voice import Utterance, Voice, find_voice
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.mp4 import Mp4Settings, write_mp4
from streaming_vlm_mlx.stream.events import GenerationResult
from tests.audio.voices import PITCH, WORD_SECONDS, voice_command
from tests.sessions.test_mp4 import read_cues, read_frames
from tests.video.clips import grey

RATE_OF_FRAMES, TONE, LEVEL = 10, 440, 0.25
# Spoken from 1 s for about 0.75 s, and from 3 s for about 0.5 s.
SAID = [
    GenerationResult(0, 0.0, 1.0, ""),
    GenerationResult(1, 1.0, 2.0, "he cuts inside."),
    GenerationResult(2, 2.0, 3.0, ""),
    GenerationResult(3, 3.0, 4.0, "and scores!"),
    GenerationResult(4, 4.0, 5.0, ""),
]
# AAC rings, and a phrase ends with the gap of its last word.
MARGIN = 0.05


def make_clip_with_tone(path: Path, seconds: float = 5.0, delay: float = 0.0, shift: float = 0.0) -> Path:
    """Write a clip with a steady tone that begins `delay` seconds after the picture, all of it `shift` seconds late."""
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=RATE_OF_FRAMES), out.add_stream("aac", rate=44100, layout="mono")
        video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 5
        for number in range(round(seconds * RATE_OF_FRAMES)):
            frame = av.VideoFrame.from_ndarray(grey(number, (64, 48)), format="rgb24")
            frame.pts, frame.time_base = number + round(shift * RATE_OF_FRAMES), Fraction(1, RATE_OF_FRAMES)
            out.mux(video.encode(frame))
        for start in range(0, round((seconds - delay) * 44100), 1024):
            wave = LEVEL * np.sin(2 * np.pi * TONE * (start + np.arange(1024)) / 44100)
            block = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
            block.sample_rate, block.time_base = 44100, Fraction(1, 44100)
            block.pts = start + round((delay + shift) * 44100)
            out.mux(audio.encode(block))
        out.mux(video.encode())
        out.mux(audio.encode())
    return path


@pytest.fixture
def voice(tmp_path: Path) -> Iterator[Voice]:
    with Voice(find_voice(voice_command(tmp_path)), 60.0) as found:
        yield found


def read_sound(path: Path, track: int) -> Samples:
    """Return the first channel of a sound track from 0 s on, at 48 kHz."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=track))
        first = round((frames[0].time or 0.0) * RATE)
        parts = [part.to_ndarray()[0] for frame in (*frames, None) for part in resampler.resample(frame)]
    samples = np.concatenate(parts)
    return np.concatenate([np.zeros(first, np.float32), samples]) if first >= 0 else samples[-first:]


def decibels(samples: Samples, pitch: float, begin: float, end: float) -> float:
    """Return the level of a tone of `pitch` between two times."""
    part = samples[round(begin * RATE) : round(end * RATE)]
    wave = np.exp(-2j * np.pi * pitch * np.arange(len(part)) / RATE)
    return float(20 * np.log10(abs((part * wave).mean()) * 2 + 1e-9))


def copied(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]


def check_levels(out: Path, track: int) -> None:
    """Check that speech is where it was said, and that the clip is lowered below it and nowhere else."""
    before, after = read_sound(out, 0), read_sound(out, track)
    for begin, length in ((1.0, 3 * WORD_SECONDS), (3.0, 2 * WORD_SECONDS)):
        for word in np.arange(begin, begin + length, WORD_SECONDS):
            assert decibels(after, PITCH, word + MARGIN, word + 0.15) > -12
        spoken = begin + MARGIN, begin + length - MARGIN - 0.05
        assert decibels(before, TONE, *spoken) - decibels(after, TONE, *spoken) >= 9
    for silent in ((0.1, 0.6), (2.0, 2.6), (3.9, 4.8)):
        assert decibels(after, TONE, *silent) == pytest.approx(decibels(before, TONE, *silent), abs=0.5)
        assert decibels(after, PITCH, *silent) < -50


def test_commentary_is_spoken_over_the_lowered_sound(tmp_path: Path, voice: Voice) -> None:
    clip, out = make_clip_with_tone(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    write_mp4(out, str(clip), SAID, Mp4Settings("deu", speak=voice.speak))
    with av.open(str(out)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "audio", "subtitle"]
        first, second = container.streams.audio
        assert (second.codec_context.name, second.rate, second.layout.name) == ("aac", RATE, "stereo")
        assert second.language == "deu"
        assert container.streams.subtitles[0].language == "deu"
        default = av.stream.Disposition.default
        assert (bool(first.disposition & default), bool(second.disposition & default)) == (True, False)
        lengths = [float(stream.duration * stream.time_base) for stream in (first, second)]
        assert lengths == pytest.approx([5.0, 5.0], abs=0.05)
    assert copied(out, "audio") == copied(clip, "audio")
    assert copied(out, "video") == copied(clip, "video")
    assert [cue[::2] for cue in read_cues(out)] == [(1.0, "he cuts inside."), (3.0, "and scores!")]
    check_levels(out, 1)


def test_a_clip_without_sound_gets_speech_as_its_sound(tmp_path: Path, voice: Voice) -> None:
    whole, clip, out = tmp_path / "whole.mp4", tmp_path / "clip.mp4", tmp_path / "out.mp4"
    make_clip_with_tone(whole)
    with av.open(str(whole)) as source, av.open(str(clip), "w") as silent:
        stream = silent.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                silent.mux(packet)
    write_mp4(out, str(clip), SAID, Mp4Settings(speak=voice.speak))
    with av.open(str(out)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "subtitle"]
    sound = read_sound(out, 0)
    assert len(sound) / RATE == pytest.approx(5.0, abs=0.05)
    assert decibels(sound, PITCH, 1.05, 1.15) > -12
    assert np.abs(sound[: round(0.9 * RATE)]).max() < 0.01


@pytest.mark.parametrize("delay", [0.0, 0.3])
@pytest.mark.parametrize("ending", [".ts", ".mkv"])
def test_times_count_from_the_first_picture(tmp_path: Path, voice: Voice, ending: str, delay: float) -> None:
    clip = make_clip_with_tone(tmp_path / f"clip{ending}", delay=delay, shift=7.0)
    out = tmp_path / "out.mp4"
    write_mp4(out, str(clip), SAID, Mp4Settings(speak=voice.speak))
    with av.open(str(out)) as container:
        video = container.streams.video[0]
        assert float(video.start_time * video.time_base) == pytest.approx(0.0, abs=0.01)
    assert [cue[0] for cue in read_cues(out)] == [1.0, 3.0]
    if not delay:
        check_levels(out, 1)
    before, after = read_sound(out, 0), read_sound(out, 1)
    # Where the tone begins in both.
    begins = [int(np.flatnonzero(np.abs(sound) > LEVEL / 3)[0]) / RATE for sound in (before, after)]
    assert begins == pytest.approx([delay, delay], abs=0.03)
    assert decibels(after, PITCH, 1.05, 1.15) > -12


def test_the_last_phrase_ends_with_the_clip(tmp_path: Path, voice: Voice) -> None:
    clip, out = make_clip_with_tone(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    write_mp4(out, str(clip), [GenerationResult(4, 4.0, 5.0, "word " * 40)], Mp4Settings(speak=voice.speak))
    sound = read_sound(out, 1)
    assert len(sound) / RATE == pytest.approx(5.0, abs=0.05)
    assert decibels(sound, PITCH, 4.02, 4.1) > -12


def test_progress_counts_the_seconds_of_the_clip(tmp_path: Path, voice: Voice) -> None:
    clip, told = make_clip_with_tone(tmp_path / "clip.mp4"), list[tuple[float, float]]()
    write_mp4(
        tmp_path / "out.mp4", str(clip), SAID, Mp4Settings(speak=voice.speak), lambda *progress: told.append(progress)
    )
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(told))
    assert told[-1][0] == told[-1][1] == pytest.approx(5.0, abs=0.05)
    assert len(told) > 10


class Interrupted:
    """Speaks a phrase, and is interrupted in the second, as by Ctrl-C."""

    def __init__(self, error: BaseException) -> None:
        self._error, self._count = error, 0

    def speak(self, text: str) -> Utterance:
        self._count += 1
        if self._count > 1:
            raise self._error
        return Utterance(np.zeros((RATE // 2, 2), np.float32), (RATE // 2,))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SvmError("the voice is hoarse; rest it.")])
@pytest.mark.parametrize("burn", [False, True])
def test_an_interrupted_export_leaves_the_old_file(tmp_path: Path, error: BaseException, burn: bool) -> None:
    clip, out = make_clip_with_tone(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    out.write_bytes(b"old")
    settings = Mp4Settings(speak=Interrupted(error).speak, burn=burn)
    with pytest.raises(type(error)):
        write_mp4(out, str(clip), SAID, settings)
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_pictures_and_times_stay(tmp_path: Path, voice: Voice) -> None:
    clip, out = make_clip_with_tone(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    write_mp4(out, str(clip), SAID, Mp4Settings(speak=voice.speak))
    assert read_frames(out) == read_frames(clip)
