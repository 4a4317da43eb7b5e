"""Decodes a clip's sound ahead of the playhead."""

from collections.abc import Callable, Iterator

from streaming_vlm_mlx.audio.clip_track import RATE, ClipTrack, Run
from streaming_vlm_mlx.audio.reader import Sound, SoundReader, open_sound
from streaming_vlm_mlx.errors import SvmError

# Seconds of sound that are decoded ahead, and that are kept behind the playhead, for a step back to where it paused.
AHEAD, BEHIND = 1.0, 0.5
# Seconds of clip that are decoded and dropped rather than skipped by a seek.
READ_THROUGH = 2.0
# Seconds by which a run may begin behind the playhead: positions are floats.
TOLERANCE = 0.001


class Feeder:
    """Keeps a track filled with the sound around the playhead; for use by one thread.

    Attributes:
        silent: whether there is no sound.
    """

    silent = False

    def __init__(self, reader: SoundReader, track: ClipTrack, clock: Callable[[], float]) -> None:
        """Fill `track` from `reader`; `clock` is that of the track's motions."""
        self._reader, self._track, self._clock = reader, track, clock
        self._sounds: Iterator[Sound] = iter(())
        # The run that is being decoded, where it begins and ends in seconds of clip, and whether there is more of it.
        self._run: Run | None = None
        self._runs = 0
        self._begin = self._end = 0.0
        self._ended = False

    def step(self) -> bool:
        """Decode a little, if it is needed, and return whether it was.

        Raises:
            SvmError: the clip cannot be read; the next step tries again.
        """
        motion = self._track.motion
        position = motion.reached(self._clock())
        run = self._run
        if run is None or run.speed != motion.speed or not self._covers(position):
            run = self._begin_run(position, motion.speed)
        if self._ended or self._end - position >= AHEAD * motion.speed:
            return False
        try:
            sound = next(self._sounds, None)
        except SvmError:
            self._run = None
            raise
        self._ended = sound is None
        if sound is not None:
            self._add(run, sound, position)
        return True

    def close(self) -> None:
        """Close the clip; call it from the thread that reads."""
        self._reader.close()

    def _begin_run(self, position: float, speed: float) -> Run:
        self._runs += 1
        run = self._run = Run(self._runs, speed)
        self._begin, self._end, self._ended = position, position, False
        self._sounds = self._reader.sounds(position, speed)
        return run

    def _covers(self, position: float) -> bool:
        """Return whether the run has, or soon will have, the sound at `position`."""
        return self._begin - TOLERANCE <= position and (self._ended or position <= self._end + READ_THROUGH)

    def _add(self, run: Run, sound: Sound, position: float) -> None:
        keep_from = position - BEHIND * run.speed
        self._run = self._track.run = run.add(sound.time, sound.samples, keep_from)
        self._begin = max(self._begin, min(keep_from, self._run.blocks[0].time))
        self._end = sound.time + len(sound.samples) * run.speed / RATE


def open_feeder(name: str, track: ClipTrack, clock: Callable[[], float]) -> Feeder | None:
    """Open what fills `track`, whose motions have `clock`, with the sound of the clip `name`; None if it has none.

    Raises:
        SvmError: see `open_sound`.
    """
    reader = open_sound(name)
    return None if reader is None else Feeder(reader, track, clock)
