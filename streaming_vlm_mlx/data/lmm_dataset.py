"""The same turns out of StreamingVLM's own ``LMMDataset``, for those who have it installed."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from streaming_vlm_mlx.data import lmm
from streaming_vlm_mlx.data.annotations import Annotation
from streaming_vlm_mlx.data.fields import BadSampleError
from streaming_vlm_mlx.data.record import Turn

_MODULE = "streaming_vlm.data.lmm_dataset"
# What a foreign dataset raises for one bad sample: its own checks, decord's and torch's errors.
_SAMPLE_ERRORS = (OSError, ValueError, LookupError, TypeError, RuntimeError, AssertionError)


class Qwen2VLMarkup:
    """All that ``LMMDataset`` asks of a processor when only texts are wanted, under a name that it accepts."""

    def tokenizer(self, _: str) -> SimpleNamespace:
        """Return the ids of an empty assistant turn: its start mark, role, line feed and end mark."""
        return SimpleNamespace(input_ids=[151644, 77091, 198, 151645])


def find() -> Any | None:
    """Return the class ``LMMDataset``, or None when StreamingVLM's package can not be imported."""
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
            BadSampleError: ``LMMDataset`` can not read it.
        """
        self._dataset.handles = [(str(path), offset)]
        try:
            with _dataset_path(self._videos):
                _, *messages = self._dataset.getitem(0, return_text=True)
            texts = [next(part["text"] for part in message["content"] if "text" in part) for message in messages]
        except _SAMPLE_ERRORS as error:
            raise BadSampleError("LMMDataset can not read it", " ".join(str(error).split())) from error
        ours = lmm.turns(annotation, len(texts) // 2)
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
