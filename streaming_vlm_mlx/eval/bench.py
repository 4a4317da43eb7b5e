"""Benchmarks: their sizes, frames, turns and forced tokens; and the cost of a second of the stream in four modes.

Imports MLX late: programs that compute without it read the configuration and the frames.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import Mode, ModelConfig, PixelConfig, StreamConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.config_io import FromDict, read_config, read_yaml
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.plots import drawing
from streaming_vlm_mlx.memory import read_memory
from streaming_vlm_mlx.stream import spans as sp
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.stream.turns import TurnWriter
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.video.image_processor import Patches, patchify

if TYPE_CHECKING:
    import mlx.core as mx

    from streaming_vlm_mlx.models.loading import ModelBundle

# Ids of plain text in Qwen's vocabulary: the markup is above them.
_WORDS = range(1_000, 100_000)


@dataclass(frozen=True)
class BenchConfig(FromDict):
    """A benchmark: sizes of the model, stream settings, frame size in pixels, and the seed of weights and frames."""

    model: ModelConfig = field(default_factory=ModelConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    height: int = 168
    width: int = 308
    seed: int = 0


# As configs/bench/stream.yaml, which an installed package does not have.
STANDARD = BenchConfig(
    ModelConfig(
        text_config=TextConfig(
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=151_680,
            mrope_section=(8, 12, 12),
        ),
        vision_config=VisionConfig(
            depth=8,
            hidden_size=256,
            intermediate_size=704,
            num_heads=4,
            window_size=112,
            fullatt_block_indexes=(3, 7),
            out_hidden_size=512,
        ),
    ),
    StreamConfig(window=8, text_round=8, sink=64, slide=64, pixels=PixelConfig(784, 301_056)),
)


def read_bench_config(path: Path) -> BenchConfig:
    """Read a benchmark's YAML.

    Raises:
        SvmError: the file is missing or damaged, or has no part ``model``.
    """
    if "model" not in read_yaml(path):
        raise SvmError(f"{path} has no part 'model'; configs/bench holds examples.")
    return read_config(path, BenchConfig)


def frames_of(config: BenchConfig, index: int) -> npt.NDArray[np.uint8]:
    """Return the frames of second `index`, uint8 [frames, height, width, 3]: a moving gradient with seeded noise."""
    count = round(config.stream.fps)
    noise = np.random.default_rng([config.seed, index]).integers(0, 64, (count, config.height, config.width, 3))
    rows, columns = np.mgrid[0 : config.height, 0 : config.width]
    drift = (rows + columns + 9 * index)[None, :, :, None]
    frames: npt.NDArray[np.uint8] = ((drift + noise) % 256).astype(np.uint8)
    return frames


@dataclass(frozen=True)
class SecondCost:
    """What one second of video cost a program.

    Attributes:
        seconds: of work on pixels and tokens.
        first_token_s: seconds of work until the first token was chosen.
        last_token_s: seconds of work until the last token was chosen.
        tokens: tokens that were generated.
        peak_rss: the most bytes that the process held until now.
    """

    seconds: float
    first_token_s: float
    last_token_s: float
    tokens: int
    peak_rss: int = 0


@dataclass(frozen=True)
class Spoken:
    """A second that a program generated.

    Attributes:
        cost: what it cost.
        scores: log-probabilities before the first and before the last token, float32 [2, vocab].
    """

    cost: SecondCost
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prompt:
    """What a program is given before it generates a second.

    Attributes:
        ids: token ids, int32 [n].
        positions: M-RoPE positions, int64 [3, n].
        pixel_values: patches of the videos in order, float32 [patches, values].
        grids: patches in time, rows and columns of each video, int64 [videos, 3].
    """

    ids: sp.Ids
    positions: npt.NDArray[np.int64]
    pixel_values: npt.NDArray[np.float32]
    grids: npt.NDArray[np.int64]

    @property
    def next_position(self) -> int:
        """The position of the first token that is generated."""
        return int(self.positions.max()) + 1


class Conversation:
    """The turns of a stream so far, written with the chat template of the benchmark's stream."""

    def __init__(self, config: BenchConfig, window: int | None) -> None:
        """Begin without a second.

        Args:
            config: of the benchmark.
            window: seconds that a prompt shows; None for all.
        """
        self._config, self._window = config, window
        tokenizer = Tokenizer.load()
        vocabulary = FullVocabulary(config.model.text_config.vocab_size)
        self._turns = TurnWriter(
            ChatTemplate.of(tokenizer, config.stream.style, config.stream.system), tokenizer, vocabulary
        )
        self._patches: dict[int, Patches] = {}
        self._videos: list[sp.Spans] = []
        self._replies: list[sp.Spans] = []

    def answer(self, tokens: Sequence[int]) -> None:
        """Append the reply of the second that was prompted last."""
        self._replies.append(self._turns.reply(len(self._replies), tokens, ()))

    def prompt(self, cached: int = 0) -> Prompt:
        """Return the prompt of the next second, without its first `cached` tokens."""
        now, config = len(self._replies), self._config.stream
        first = 0 if self._window is None else max(now - self._window + 1, 0)
        self._look(now)
        spans = self._turns.head(config.previous)
        for number in range(first, now + 1):
            query = config.query if number == first else ""
            spans += self._turns.user(number, float(number), number + 1.0, self._videos[number], "", query)
            spans += self._replies[number] if number < now else ()
        spans = sp.number_slots(spans)
        new = dict.fromkeys(s.round for s in spans if s.part == "video" and s.slots[0] >= cached)
        self._patches = {number: self._patches[number] for number in new}
        vision = self._config.model.vision_config
        step = vision.time_step(config.pixels.temporal_patch_size / config.fps) if vision else 0.0
        return Prompt(
            sp.join_ids(spans)[cached:],
            sp.positions(spans, 0, config, step)[:, cached:],
            np.concatenate([patches.pixel_values for patches in self._patches.values()]),
            np.array([patches.grid_thw for patches in self._patches.values()], np.int64),
        )

    def _look(self, number: int) -> None:
        """Add the video of second `number`."""
        config = self._config.stream
        patches = self._patches[number] = patches_of(self._config, number)
        time, rows, columns = patches.grid_thw
        merge = config.pixels.merge_size
        grid = (time, rows // merge, columns // merge)
        depth = config.pixels.temporal_patch_size
        self._videos.append(self._turns.video(number, float(number), grid, config.fps, depth))


def patches_of(config: BenchConfig, index: int) -> Patches:
    """Return the patches of second `index`."""
    return patchify(frames_of(config, index), config.stream.pixels)


def forced_tokens(config: BenchConfig, index: int) -> list[int]:
    """Return the tokens that every program generates in second `index`: words drawn from the seed.

    They are one fewer than the stream's `max_new_tokens`, whose last is the turn's end.
    """
    count = max(config.stream.sampling.max_new_tokens - 1, 1)
    drawn = np.random.default_rng([config.seed, index, 1]).integers(_WORDS.start, _WORDS.stop, count)
    return [int(token) for token in drawn]


def prompt_tokens(config: BenchConfig, number: int, count: int) -> list[int]:
    """Return `count` words drawn from the seed, for prompt `number` of a measured prefill."""
    drawn = np.random.default_rng([config.seed, number, 2]).integers(_WORDS.start, _WORDS.stop, count)
    return [int(token) for token in drawn]


def run_bench(config: BenchConfig, mode: Mode, seconds: int, dtype: "mx.Dtype") -> Iterator[GenerationResult]:
    """Generate `seconds` seconds in `mode` with random weights in `dtype`; see `run_stream`."""
    from streaming_vlm_mlx.stream.bundle_loader import random_bundle

    bundle = random_bundle(config.model, dtype, replace(config.stream, mode=mode), config.seed)
    return run_stream(config, bundle, mode, seconds)


def run_stream(config: BenchConfig, bundle: "ModelBundle", mode: Mode, seconds: int) -> Iterator[GenerationResult]:
    """Generate `seconds` seconds in `mode` and yield the record of each; image processing is not timed."""
    from streaming_vlm_mlx.stream.generate import SecondRequest, Session

    session = Session(bundle, replace(config.stream, mode=mode))
    for index in range(seconds):
        patches = patches_of(config, index)
        *_, result = session.generate(SecondRequest(index, float(index), index + 1.0, patches))
        assert isinstance(result, GenerationResult)
        yield replace(result, memory=read_memory())


def plot_bench(runs: Mapping[str, Sequence[GenerationResult]], path: Path) -> None:
    """Plot the seconds of work and the cached tokens of each mode over time, as a PNG at `path`.

    Raises:
        SvmError: matplotlib is not installed, or the file cannot be written.
    """
    with drawing(path, 9, 6) as figure:
        cost, cache = figure.subplots(2, 1, sharex=True)
        for mode, seconds in runs.items():
            index = [s.index for s in seconds]
            cost.plot(index, [s.timings.total_ms / 1e3 for s in seconds], label=mode, linewidth=1)
            cache.plot(index, [s.cache_tokens for s in seconds], label=mode, linewidth=1)
        cost.axhline(1.0, color="gray", linewidth=0.8, linestyle=":")
        cost.set_ylabel("seconds of work a second")
        cache.set_ylabel("tokens in the cache")
        cache.set_xlabel("seconds of video")
        cost.legend()
