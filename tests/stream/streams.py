"""Streams over a small model: requests for them, and samplers that force tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import SamplingConfig, Style
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.events import GenerationResult, SpanMap, TextPiece
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import Vocabulary
from streaming_vlm_mlx.video.image_processor import Patches
from tests.small import small_config, small_model

Grid = tuple[int, int, int]
GREEDY = SamplingConfig(max_new_tokens=5)
PATCH = 3 * 2 * 14 * 14


def make_bundle(
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    layers: int = 2,
    vision: bool = True,
    style: Style = "inference",
    seed: int = 0,
) -> ModelBundle:
    """Return a small model's bundle; its clock advances by a second at each reading."""
    model = small_model(small_config(len(vocabulary), layers, vision), seed)
    clock = map(float, itertools.count()).__next__
    return ModelBundle(model, tokenizer, vocabulary, ChatTemplate.of(tokenizer, style), clock)


def make_second(index: int, grid: Grid = (1, 2, 4), question: str = "") -> SecondRequest:
    """Return second `index` with random patches."""
    pixels = np.random.default_rng([3, index]).standard_normal((int(np.prod(grid)), PATCH), dtype=np.float32)
    return SecondRequest(index, float(index), index + 1.0, Patches(pixels, grid), question)


@dataclass
class Forced:
    """A sampler that forces the ids `forced`, and keeps the logits and rows that it gets."""

    vocabulary: Vocabulary
    forced: Sequence[int]
    logits: list[npt.NDArray[np.float32]] = field(default_factory=list)
    seen: list[npt.NDArray[np.int32]] = field(default_factory=list)

    def sample(self, logits: mx.array, seen: npt.NDArray[np.int32], step: int) -> int:
        """Return the row of the next token."""
        self.logits.append(np.array(logits))
        self.seen.append(seen)
        return int(self.vocabulary.to_rows([self.forced[step]])[0])


@dataclass(frozen=True)
class Said:
    """The output of one second."""

    spans: SpanMap
    pieces: tuple[str, ...]
    sum: GenerationResult

    @property
    def text(self) -> str:
        """The commentary."""
        return self.sum.text


def generate(session: Session, second: SecondRequest, sampler: Forced | None = None) -> Said:
    """Generate one second to its end."""
    first, *pieces, last = session.generate(second, sampler)
    assert isinstance(first, SpanMap)
    assert isinstance(last, GenerationResult)
    return Said(first, tuple(p.text for p in pieces if isinstance(p, TextPiece)), last)


def force(session: Session, bundle: ModelBundle, second: SecondRequest, forced: Sequence[int]) -> Forced:
    """Generate one second with the tokens `forced`, and return the sampler with its logits."""
    limit = replace(session.config.sampling, max_new_tokens=len(forced))
    session.configure(replace(session.config, sampling=limit))
    sampler = Forced(bundle.vocabulary, forced)
    generate(session, second, sampler)
    return sampler
