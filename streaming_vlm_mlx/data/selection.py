"""Which samples of a dataset are taken."""

import fnmatch
import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from streaming_vlm_mlx.data.annotations import Annotation
from streaming_vlm_mlx.data.lines import Offsets
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.from_dict import FromDict

Split = Literal["all", "train", "valid"]


@dataclass(frozen=True)
class Selection(FromDict):
    """What is taken.

    Attributes:
        games: glob that a video's path must match, where ``*`` also matches ``/``; null for any.
        max_samples: records written at most; null for all.
        every: one sample of so many.
        min_words: samples with fewer words of commentary are left out; 0 keeps silent ones.
        split: the clips to learn from (``train``), those held out (``valid``), or ``all``.
        held_out: share of clips that is held out; a clip's path alone decides, so that no clip is on both sides.
        shard: which part of the samples, from 1 up.
        shards: how many parts there are.
    """

    games: str | None = None
    max_samples: int | None = None
    every: int = 1
    min_words: int = 1
    split: Split = "all"
    held_out: float = 0.05
    shard: int = 1
    shards: int = 1

    def check(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            SvmError: names the first.
        """
        if self.every < 1:
            raise SvmError(f"every is {self.every}; one sample of every 1, 2, 3 or more can be taken.")
        if not 1 <= self.shard <= self.shards:
            raise SvmError(
                f"shard is {self.shard}/{self.shards}; it can be 1/{self.shards} to {self.shards}/{self.shards}."
            )
        if not 0 <= self.held_out <= 1:
            raise SvmError(f"held_out is {self.held_out}; it is a share, from 0 to 1.")
        if self.max_samples is not None and self.max_samples < 1:
            raise SvmError(f"max_samples is {self.max_samples}; it must be 1 or more.")

    def numbers(self, total: int) -> Offsets:
        """Return int64 [n], which of `total` samples are looked at."""
        return np.arange(0, total, self.every)[self.shard - 1 :: self.shards]

    def leaves_out(self, annotation: Annotation) -> str | None:
        """Return why `annotation` is not taken, or None when it is."""
        if self.games is not None and not fnmatch.fnmatchcase(annotation.video, self.games):
            return "another game"
        if self.split != "all" and (self.split == "valid") != self._is_held_out(annotation.video):
            return "the other split"
        return None

    def _is_held_out(self, video: str) -> bool:
        digest = hashlib.blake2b(video.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.held_out * 2**64
