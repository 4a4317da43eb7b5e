"""The words of a training conversation, as StreamingVLM's ``LMMDataset`` puts them.

Trained checkpoints rely on its odd details: each commentary starts with a line feed, every second but the first has a
space behind its times, and a question stands in the user's text, its answer before the line feed.
"""

import importlib
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.annotations import Annotation, Candidate
from streaming_vlm_mlx.data.clip_metadata import Clip, ClipCache
from streaming_vlm_mlx.data.frame_workers import count_seconds
from streaming_vlm_mlx.data.jsonl import BadSampleError
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.video.image_processor import grid_thw, merged


def user_text(start: float, end: float, question: str = "", *, first: bool) -> str:
    """Return what stands before the video of the second from `start` to `end`."""
    return f"Time={start:.1f}-{end:.1f}s{'' if first else ' '}{question}"


def assistant_text(words: Iterable[str], answer: str = "") -> str:
    """Return an answer and the commentary made of `words`; none are a silent second."""
    return answer + "\n" + " ".join(("", *words, "..."))


def make_turns(annotation: Annotation, count: int) -> tuple[Turn, ...]:
    """Return the first `count` seconds of `annotation`.

    A word is said in the first second that it ends in or before; words that end later than the last second are left
    out. A question falls in the second that its end lies in; as in the original only the next one is looked at, so
    the second of two in the same second, and all behind it, are lost.
    """
    words, questions = annotation.words, annotation.questions
    made, said, asked = [], 0, 0
    for second in range(count):
        start, end = annotation.start + second, annotation.start + (second + 1)
        spoken = said
        while said < len(words) and words[said][1] <= end:
            said += 1
        question = answer = ""
        if asked < len(questions) and start < questions[asked][1] <= end:
            question, answer = questions[asked][2:]
            asked += 1
        user = user_text(start, end, question, first=not second)
        assistant = assistant_text([word for _, _, word in words[spoken:said]], answer)
        made.append(Turn(start, end, user, assistant, question, answer))
    return tuple(made)


_MODULE = "streaming_vlm.data.lmm_dataset"
# What a foreign dataset raises for one bad sample: its own checks, decord's and torch's errors.
_SAMPLE_ERRORS = (OSError, ValueError, LookupError, TypeError, RuntimeError, AssertionError)


class Qwen2VLMarkup:
    """All that ``LMMDataset`` asks of a processor when only texts are wanted, under a name that it accepts."""

    def tokenizer(self, _: str) -> SimpleNamespace:
        """Return the ids of an empty assistant turn: its start mark, role, line feed and end mark."""
        return SimpleNamespace(input_ids=[151644, 77091, 198, 151645])


def find_lmm_dataset() -> Any | None:
    """Return the class ``LMMDataset``, or None when StreamingVLM's package cannot be imported."""
    try:
        return importlib.import_module(_MODULE).LMMDataset
    except ImportError:
        return None


class LMMReader:
    """Words samples with `dataset_class`; it decodes every frame, so it is far slower than our own reader."""

    def __init__(self, dataset_class: Any, videos: Path) -> None:
        self._dataset = dataset_class(train_annotation_paths=[], processor=Qwen2VLMarkup())
        self._videos = videos

    def turns(self, path: Path, offset: int, annotation: Annotation) -> tuple[Turn, ...]:
        """Return the turns of the sample at byte `offset` of the annotation file `path`.

        Raises:
            BadSampleError: ``LMMDataset`` cannot read it.
        """
        self._dataset.handles = [(str(path), offset)]
        try:
            with _dataset_path(self._videos):
                _, *messages = self._dataset.getitem(0, return_text=True)
            texts = [next(part["text"] for part in message["content"] if "text" in part) for message in messages]
        except _SAMPLE_ERRORS as error:
            raise BadSampleError("LMMDataset cannot read it", " ".join(str(error).split())) from error
        ours = make_turns(annotation, len(texts) // 2)
        theirs = zip(ours, texts[::2], texts[1::2], strict=True)
        return tuple(replace(turn, user_text=user, assistant_text=said) for turn, user, said in theirs)


@contextmanager
def _dataset_path(videos: Path) -> Iterator[None]:
    """Point ``DATASET_PATH``, where ``LMMDataset`` looks for clips, at `videos`."""
    before = os.environ.get("DATASET_PATH")
    os.environ["DATASET_PATH"] = str(videos)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DATASET_PATH"]
        else:
            os.environ["DATASET_PATH"] = before


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
            BadSampleError: its clip cannot be used, or it lies outside of it.
        """
        video = self._videos / annotation.video
        clip = self._clips.get(video)
        end, max_frames = annotation.end, FPS_MAX_FRAMES
        if end is None:
            annotation, end, max_frames = _to_the_end(annotation, clip)
        if self._reader is not None:
            turns = self._reader.turns(candidate.path, candidate.offset, annotation)
        else:
            turns = make_turns(annotation, count_seconds(clip.times, annotation.start, end, FPS, max_frames))
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
