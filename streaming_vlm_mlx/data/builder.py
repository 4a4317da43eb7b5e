"""From an annotation and its clip to a record."""

import math
from dataclasses import replace
from pathlib import Path

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data import lmm
from streaming_vlm_mlx.data.annotations import Annotation
from streaming_vlm_mlx.data.clips import Clip, ClipCache
from streaming_vlm_mlx.data.fields import BadSampleError
from streaming_vlm_mlx.data.frames import count_seconds
from streaming_vlm_mlx.data.grids import grid_thw, merged
from streaming_vlm_mlx.data.lmm_dataset import LMMReader
from streaming_vlm_mlx.data.record import StreamingRecord, Turn
from streaming_vlm_mlx.data.sources import Candidate
from streaming_vlm_mlx.errors import SvmError

# Of LMMDataset: frames a second, and how many a sample may have.
FPS = 2
FPS_MAX_FRAMES = 480


class RecordBuilder:
    """Makes records.

    No frame is decoded, except by ``LMMDataset`` itself where that is asked for.
    """

    def __init__(
        self,
        clips: ClipCache,
        videos: Path,
        folder: Path,
        pixels: PixelConfig | None = None,
        reader: LMMReader | None = None,
    ) -> None:
        """Prepare.

        Args:
            clips: what is known of clips.
            videos: folder that relative paths of videos start from.
            folder: of the records' file; clips in it are referred to by relative paths.
            pixels: to count the tokens of each second's video; None leaves them uncounted.
            reader: words the turns in place of our own reader.
        """
        self._clips = clips
        self._videos = videos.absolute()
        self._folder = folder.absolute()
        self._pixels = pixels
        self._reader = reader

    def build(self, candidate: Candidate, annotation: Annotation) -> StreamingRecord:
        """Return the record of `annotation`, which `candidate` was read as.

        Raises:
            BadSampleError: its clip can not be used, or it lies outside of it.
        """
        video = self._videos / annotation.video
        clip = self._clips.get(video)
        end, max_frames = annotation.end, FPS_MAX_FRAMES
        if end is None:
            annotation, end, max_frames = _to_the_end(annotation, clip)
        if self._reader is not None:
            turns = self._reader.turns(candidate.path, candidate.offset, annotation)
        else:
            turns = lmm.turns(annotation, count_seconds(clip.times, annotation.start, end, FPS, max_frames))
        if not turns:
            raise BadSampleError(
                "outside its clip", f"{annotation.start:g} to {end:g} s, where {video} ends at {clip.duration:.1f} s"
            )
        return StreamingRecord(
            video=self._stored(video),
            video_start=annotation.start,
            video_end=end,
            turns=self._counted(turns, clip),
            previous=annotation.previous,
            query=annotation.query,
            fps=float(FPS),
            width=clip.width,
            height=clip.height,
        )

    def _stored(self, video: Path) -> str:
        return str(video.relative_to(self._folder) if video.is_relative_to(self._folder) else video)

    def _counted(self, turns: tuple[Turn, ...], clip: Clip) -> tuple[Turn, ...]:
        if self._pixels is None:
            return turns
        try:
            grid = grid_thw(clip.width, clip.height, FPS, self._pixels)
        except SvmError as error:
            raise BadSampleError("unusable picture", str(error)) from error
        return tuple(replace(turn, vision_tokens=merged(grid, self._pixels)) for turn in turns)


def _to_the_end(annotation: Annotation, clip: Clip) -> tuple[Annotation, float, int]:
    """Fit an annotation of a whole clip to it; return it, where it ends and how many frames it takes.

    A last second of less than ``1 / FPS`` is dropped, as a player drops it; a word that starts before the clip ends is
    said in the last second that is left.
    """
    count = max(1, math.floor(clip.duration - 1 / FPS) + 1)
    end = annotation.start + count
    words = tuple((start, min(until, end), word) for start, until, word in annotation.words if start < clip.duration)
    if not words:
        raise BadSampleError(
            "outside its clip", f"the first word comes at {annotation.words[0][0]:g} s, {clip.duration:.1f} s long"
        )
    return replace(annotation, words=words), end, count * FPS
