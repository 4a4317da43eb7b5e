"""Builds training records from annotations, with the texts of StreamingVLM's ``LMMDataset``.

Trained checkpoints rely on the details of these texts: each commentary starts with a line feed, every second but the
first has a space after its times, and a question is part of the user's text, its answer comes before the line feed.
"""

import importlib
import importlib.metadata
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.clip_metadata import ClipCache, ClipMetadata
from streaming_vlm_mlx.data.frame_workers import count_seconds
from streaming_vlm_mlx.data.json_fields import BadSampleError
from streaming_vlm_mlx.data.livecc_annotations import Annotation, Candidate
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import path_below
from streaming_vlm_mlx.text.chat_template import assistant_text, user_text
from streaming_vlm_mlx.video.image_processor import grid_thw, merged_tokens


def make_turns(annotation: Annotation, count: int) -> tuple[Turn, ...]:
    """Return the first `count` seconds of `annotation`.

    A word belongs to the first second that it ends in or before; words that end after the last second are dropped. A
    question belongs to the second that it ends in. As in the original, only the next question is considered, so the
    second one in the same second, and all later ones, are dropped.
    """
    words, questions = annotation.words, annotation.questions
    turns, next_word, next_question = [], 0, 0
    for second in range(count):
        start, end = annotation.start + second, annotation.start + (second + 1)
        first_word = next_word
        while next_word < len(words) and words[next_word][1] <= end:
            next_word += 1
        question = answer = ""
        if next_question < len(questions) and start < questions[next_question][1] <= end:
            question, answer = questions[next_question][2:]
            next_question += 1
        user = user_text(start, end, question, first=not second)
        assistant = assistant_text([word for _, _, word in words[first_word:next_word]], answer)
        turns.append(Turn(start, end, user, assistant, question, answer))
    return tuple(turns)


_MODULE = "streaming_vlm.data.lmm_dataset"
# Errors that a third-party package raises while it is imported.
_IMPORT_ERRORS = (ImportError, OSError, AttributeError, RuntimeError)
# Errors that LMMDataset raises for one bad sample: its own checks, decord's and torch's.
_SAMPLE_ERRORS = (OSError, ValueError, LookupError, TypeError, RuntimeError, AssertionError)


class Qwen2VLMarkup:
    """The processor that ``LMMDataset`` needs to return texts, under a name that it accepts."""

    def tokenizer(self, _: str) -> SimpleNamespace:
        """Return the ids of an empty assistant turn: its start mark, role, line feed and end mark."""
        return SimpleNamespace(input_ids=[151644, 77091, 198, 151645])


def load_lmm_dataset() -> Any:
    """Import the class ``LMMDataset`` of StreamingVLM's package.

    Raises:
        SvmError: it cannot be imported; the message names the cause.
    """
    try:
        return importlib.import_module(_MODULE).LMMDataset
    except _IMPORT_ERRORS as error:
        raise SvmError(f"LMMDataset cannot be imported ({_import_problem(error)})") from error


def _import_problem(error: Exception) -> str:
    """Describe `error` in one line, with the version of the package that lacks a name."""
    found = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    if found:
        name, module = found.groups()
        for package in importlib.metadata.packages_distributions().get(module.split(".")[0], []):
            return f"{package} {importlib.metadata.version(package)} has no {name}"
    return " ".join(str(error).split())


class LMMReader:
    """Reads samples with ``LMMDataset``, which decodes every frame and is far slower than the built-in reader."""

    def __init__(self, dataset_class: Any, videos: Path) -> None:
        self._dataset = dataset_class(train_annotation_paths=[], processor=Qwen2VLMarkup())
        self._videos = videos

    def turns(self, path: Path, offset: int, annotation: Annotation) -> tuple[Turn, ...]:
        """Return all turns that ``LMMDataset`` makes of the sample at byte `offset` of the annotation file `path`.

        They may continue after the end of the sample: decord counts frames before the start of the clip (its
        pre-roll), and ``LMMDataset`` treats a start of 0 as unset.

        Raises:
            BadSampleError: ``LMMDataset`` cannot read the sample.
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
    """Set ``DATASET_PATH``, the folder where ``LMMDataset`` looks for clips, to `videos`."""
    before = os.environ.get("DATASET_PATH")
    os.environ["DATASET_PATH"] = str(videos)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DATASET_PATH"]
        else:
            os.environ["DATASET_PATH"] = before


# Frames per second, and the maximum number of frames of a sample, in LMMDataset.
FPS = 2
FPS_MAX_FRAMES = 480
# The most seconds of a record: a day. Damaged timestamps say more.
MOST_TURNS = 86_400


@dataclass(frozen=True, slots=True)
class BuiltRecord:
    """A record, and the number of turns of ``LMMDataset`` after its end, which are not in it."""

    record: StreamingRecord
    dropped_turns: int = 0


class RecordBuilder:
    """Builds records from annotations; only ``LMMDataset``, if it is used, decodes frames."""

    def __init__(
        self,
        clips: ClipCache,
        videos: Path,
        folder: Path,
        pixels: PixelConfig | None = None,
        reader: LMMReader | None = None,
    ) -> None:
        """Create a builder.

        Args:
            clips: metadata of clips.
            videos: folder of relative video paths.
            folder: folder of the record file; paths of clips in it become relative.
            pixels: counts the vision tokens of each second; None does not count.
            reader: reads the turns instead of the built-in reader.
        """
        self._clips = clips
        self._videos = videos.absolute()
        self._folder = folder.absolute()
        self._pixels = pixels
        self._reader = reader

    def build(self, candidate: Candidate, annotation: Annotation) -> BuiltRecord:
        """Return the record of `annotation`, the contents of `candidate`.

        Raises:
            BadSampleError: the clip cannot be used, or the annotation is outside it.
        """
        video = Path(annotation.video) if candidate.is_pair else self._find(annotation.video)
        clip = self._clips.get(video)
        end, max_frames = annotation.end, FPS_MAX_FRAMES
        if end is None:
            annotation, end, max_frames = _to_the_end(annotation, clip)
        count = count_seconds(clip.times, annotation.start, end, FPS, max_frames)
        if count > MOST_TURNS:
            raise BadSampleError("clip too long", f"{video} has {count} s; cut it into clips of a day at most")
        dropped = 0
        if self._reader is not None:
            turns = self._reader.turns(candidate.path, candidate.offset, annotation)
            dropped = max(0, len(turns) - count)
            turns = turns[:count]
        else:
            turns = make_turns(annotation, count)
        if not turns:
            raise BadSampleError(
                "outside its clip", f"{annotation.start:g} to {end:g} s, but {video} ends at {clip.duration:.1f} s"
            )
        record = StreamingRecord(
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
        return BuiltRecord(record, dropped)

    def _find(self, name: str) -> Path:
        try:
            return Path(path_below(self._videos, name))
        except SvmError as error:
            raise BadSampleError("outside its folder", f"{name} is not below {self._videos}") from error

    def _stored(self, video: Path) -> str:
        return str(video.relative_to(self._folder) if video.is_relative_to(self._folder) else video)

    def _counted(self, turns: tuple[Turn, ...], clip: ClipMetadata) -> tuple[Turn, ...]:
        if self._pixels is None:
            return turns
        try:
            grid = grid_thw(clip.width, clip.height, FPS, self._pixels)
        except SvmError as error:
            raise BadSampleError("unusable picture", str(error)) from error
        return tuple(replace(turn, vision_tokens=merged_tokens(grid, self._pixels)) for turn in turns)


def _to_the_end(annotation: Annotation, clip: ClipMetadata) -> tuple[Annotation, float, int]:
    """Cut an annotation of a whole clip at the end of the clip; return it with its end and its number of frames.

    A last second shorter than ``1 / FPS`` is dropped, as in the player. A word that starts before the end of the clip
    belongs to the last remaining second at the latest.
    """
    count = max(1, math.floor(clip.duration - 1 / FPS) + 1)
    end = annotation.start + count
    words = tuple((start, min(until, end), word) for start, until, word in annotation.words if start < clip.duration)
    if not words:
        raise BadSampleError(
            "outside its clip", f"the first word is at {annotation.words[0][0]:g} s, the clip has {clip.duration:.1f} s"
        )
    return replace(annotation, words=words), end, count * FPS
