"""What a sport must give to be filmed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from streaming_vlm_mlx.matches.film import Pixels
from streaming_vlm_mlx.matches.truth import Question, Truth, Word


class Match(Protocol):
    """A stretch of one match, all of it decided by its seed."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    @property
    def fps(self) -> int:
        """Frames a second."""

    @property
    def crf(self) -> int:
        """How coarsely the clip is to be compressed: H.264's constant rate factor."""

    def truth(self, video: str) -> Truth:
        """Return commentary, events and what is where in each frame; `video` is the clip's file name."""

    def words(self, telling: int) -> Sequence[Word]:
        """Return commentary; each number `telling` from 0 on tells the same play in other words, 0 as in the truth."""

    def frames(self) -> Iterator[Pixels]:
        """Yield the pictures in order: uint8 [height, width, 3], RGB."""


class Sport(Protocol):
    """Makes matches."""

    @property
    def name(self) -> str:
        """One word, as in the sidecar's ``sport`` and the annotation's title."""

    def match(self, seed: int, seconds: float) -> Match:
        """Return `seconds` of the match that belongs to `seed`; the same arguments give the same match."""

    def questions(self, truth: Truth, every: float) -> Sequence[Question]:
        """Return what a viewer asks about a match, once in `every` seconds, with answers that can be seen."""

    def sights(self, truth: Truth) -> Sequence[Question]:
        """Return a question what there is to see for every second, with an answer that names all of it."""

    def targets(self, truth: Truth) -> Mapping[str, npt.NDArray[Any]]:
        """Return what each picture of a match shows: the arrays of its ``.targets.npz``."""
