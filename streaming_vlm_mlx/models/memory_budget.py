"""What a checkpoint takes in memory under a stream's settings, told before a weight is read."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.config import ModelConfig, StreamConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import available_memory, machine_memory
from streaming_vlm_mlx.models.convert import quantization_for
from streaming_vlm_mlx.models.loading import open_checkpoint
from streaming_vlm_mlx.models.tensor_parallel import split_axis
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.kv_cache import KVCache
from streaming_vlm_mlx.text.detokenizer import SCRATCH_TOKENS

GIB = 1 << 30
# Tokens of markup, time and question around a second's video and words, and of what stands before the first.
_TURN, _HEAD = 48, 96
# Queries whose scores a CPU computes at a time, and how often it holds them; a GPU's kernel holds none.
_STRETCH, _COPIES = 128, 7


@dataclass(frozen=True)
class Budget:
    """Bytes, at the most that a stream comes to; on windows that nothing bounds, after `rounds` seconds.

    Attributes:
        weights: of the model as it is computed with.
        cache: keys and values of `tokens` tokens.
        vision: what the vision tower holds while it sees a second of the largest pictures allowed.
        decoder: what a layer holds while a second is taken in, its scratch copy of the cache counted.
        tokens: that the full windows keep.
        rounds: seconds that they span.
        bounded: whether the settings bound them.
        machines: that share the model; all bytes are of each.
    """

    weights: int
    cache: int
    vision: int
    decoder: int
    tokens: int
    rounds: int
    bounded: bool
    machines: int = 1

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment."""
        return self.weights + self.cache + max(self.vision, self.decoder)

    def line(self) -> str:
        """Return the sum and its parts, for people."""
        where = f" on each of {self.machines} machines" if self.machines > 1 else ""
        return (
            f"{_gib(self.peak)}{where} (weights {_gib(self.weights)}, cache {_gib(self.cache)}, "
            f"vision {_gib(self.vision)}, decoder {_gib(self.decoder)})"
        )


@dataclass(frozen=True)
class Change:
    """A way to need less: what to do, and the peak that this leaves."""

    what: str
    peak: int


def budget_of(folder: Path, stream: StreamConfig, dtype: mx.Dtype, gpu: bool) -> tuple[ModelConfig, Budget]:
    """Return the model's settings in `folder` and what it takes; only headers are read.

    Raises:
        SvmError: the folder is damaged, or the settings do not fit the model.
    """
    config = open_checkpoint(folder).config
    return config, estimate(config, stream, dtype, gpu)


def check_fits(
    config: ModelConfig, folder: Path, stream: StreamConfig, dtype: mx.Dtype, gpu: bool, limit: int, machines: int = 1
) -> None:
    """Refuse a model that takes more than `limit` bytes, of each of the `machines` that share it.

    Raises:
        SvmError: says what it takes and what to change.
    """
    budget = estimate(config, stream, dtype, gpu, machines)
    if budget.peak > limit:
        raise SvmError(f"{folder} {refusal(budget, ways_out(config, stream, dtype, gpu, machines), limit)}")


def check_trains(config: ModelConfig, folder: Path, dtype: mx.Dtype, moving: int, limit: int) -> None:
    """Refuse to train a model of which what stands in memory from end to end takes more than `limit` bytes.

    Args:
        config: the model's sizes.
        folder: the checkpoint's, to be named.
        dtype: that its weights are held in.
        moving: how many of them are trained; of each a gradient and AdamW's two means are held, in float32.
        limit: bytes that there are.

    Raises:
        SvmError: says what it takes and what takes less.
    """
    weights, learning = _weights(config, dtype), 3 * moving * mx.float32.size
    if weights + learning > limit:
        parts = f"weights {_gib(weights)}, gradients and AdamW's means {_gib(learning)}"
        way_out = "train adapters with --lora" if moving else "take fewer bits (svm-tui convert-ckpt --bits)"
        raise SvmError(
            f"{folder} needs {_gib(weights + learning)} and more to be trained ({parts}) and there are {_gib(limit)}; "
            f"{way_out}, or take a smaller model."
        )


def estimate(config: ModelConfig, stream: StreamConfig, dtype: mx.Dtype, gpu: bool, machines: int = 1) -> Budget:
    """Add up what a model of `config` takes while it streams under `stream`, computing in `dtype`.

    Nothing is computed and nothing read. Of several machines that share the model, it is what the first one takes.

    Raises:
        SvmError: the settings do not fit the model.
    """
    rounds, bounded = _rounds(stream)
    turn = _video_tokens(config.vision_config, stream) + _TURN
    kept = (stream.sink or 0) + (stream.slide or 0)
    spoken = stream.sampling.max_new_tokens + (SCRATCH_TOKENS if stream.scratchpad else 0)
    tokens = _HEAD + kept + (rounds + 1) * (turn + spoken)
    moves = stream.mode == "streaming" and stream.pos_mode == "shrink"
    text = config.text_config
    text = replace(text, num_key_value_heads=max(text.num_key_value_heads // machines, 1))
    cache = KVCache(text, dtype, tokens, moves, stream.kv_bits)
    new = tokens if stream.mode == "recompute" else turn + _HEAD + kept
    return Budget(
        weights=_weights(config, dtype, machines),
        cache=cache.nbytes,
        vision=_vision(config.vision_config, stream, dtype, gpu),
        decoder=_decoder(text, new, cache.capacity, dtype, gpu),
        tokens=tokens,
        rounds=rounds,
        bounded=bounded,
        machines=machines,
    )


def ways_out(config: ModelConfig, stream: StreamConfig, dtype: mx.Dtype, gpu: bool, machines: int = 1) -> list[Change]:
    """Return what could be changed, one thing at a time and all together at the end, with the peak that each leaves."""

    def peak(config: ModelConfig, stream: StreamConfig) -> int:
        return estimate(config, stream, dtype, gpu, machines).peak

    found = []
    small = config
    if config.quantization is None:
        for bits in (8, 4):
            small = replace(config, quantization=quantization_for(config, bits))
            found.append(Change(f"'svm-tui convert-ckpt --bits {bits}'", peak(small, stream)))
    window, text_round = max(stream.window // 2, 1), max(stream.text_round // 2, 1)
    short = replace(stream, window=window, text_round=text_round)
    if short != stream and stream.mode != "full":
        found.append(Change(f"window {window} and text_round {text_round}", peak(config, short)))
    pixels = replace(stream.pixels, max_pixels=max(stream.pixels.max_pixels // 2, stream.pixels.min_pixels))
    if config.vision_config and pixels != stream.pixels:
        coarse = replace(stream, pixels=pixels)
        found.append(Change(f"pixels.max_pixels {pixels.max_pixels}", peak(config, coarse)))
        short = replace(short, pixels=pixels)
    if len(found) > 1:
        found.append(Change("all of these", peak(small, short)))
    return found


def refusal(budget: Budget, changes: list[Change], limit: int) -> str:
    """Return a line on why a model of `budget` is not loaded where there are `limit` bytes for it."""
    fitting = [f"{c.what} ({_gib(c.peak)})" for c in changes if c.peak <= limit]
    fits = f"what would fit: {', or '.join(fitting)}"
    way_out = f"{fits}." if fitting else "no setting makes it fit; take a smaller model."
    return f"needs {budget.line()} and there are {_gib(limit)}; {way_out}"


def memory_limit() -> int:
    """Return the bytes that a model may take here: what Metal recommends, else what is free, else all there is."""
    if mx.metal.is_available():
        return int(mx.device_info()["max_recommended_working_set_size"])
    free = available_memory()
    return machine_memory() if free is None else free


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _rounds(stream: StreamConfig) -> tuple[int, bool]:
    """Return the seconds that are kept and whether the settings bound them; else those of ten minutes."""
    bounded = stream.mode != "full" and stream.sink is not None and stream.slide is not None
    if stream.mode == "full":
        return 600, False
    return max(stream.window, stream.text_round), bounded


def _video_tokens(vision: VisionConfig | None, stream: StreamConfig) -> int:
    """Return the most tokens that a second's video takes."""
    if vision is None:
        return 0
    return _patches(stream) * _steps(stream) // stream.pixels.merge_size**2


def _patches(stream: StreamConfig) -> int:
    """Return the most patches of one temporal step."""
    return int(stream.pixels.max_pixels // stream.pixels.patch_size**2)


def _steps(stream: StreamConfig) -> int:
    return max(math.ceil(stream.fps / stream.pixels.temporal_patch_size), 1)


def _weights(config: ModelConfig, dtype: mx.Dtype, machines: int = 1) -> int:
    def nbytes(name: str, array: mx.array) -> int:
        size: int = array.size * (array.dtype.size if array.dtype == mx.uint32 else dtype.size)
        return size if split_axis(name) is None else size // machines

    return sum(nbytes(name, array) for name, array in VisionLanguageModel(config).named_arrays())


def _vision(vision: VisionConfig | None, stream: StreamConfig, dtype: mx.Dtype, gpu: bool) -> int:
    if vision is None:
        return 0
    patches, steps = _patches(stream), _steps(stream)
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    # The residual, what is normed, queries, keys and values, turned and not, and what the feed-forward part gates.
    numbers = 12 * vision.hidden_size + 4 * vision.intermediate_size
    scores = 0 if gpu else vision.num_heads * patches * 4 * _COPIES
    return patches * steps * (2 * values * 4 + numbers * dtype.size + scores)


def _decoder(text: TextConfig, new: int, capacity: int, dtype: mx.Dtype, gpu: bool) -> int:
    numbers = 12 * text.hidden_size + 4 * text.intermediate_size
    scores = 0 if gpu else text.num_attention_heads * min(new, _STRETCH) * capacity * 4 * _COPIES
    # Keys are turned in float32; pruning and turning hold a layer's blocks once more.
    layer = 4 * capacity * text.num_key_value_heads * text.head_dim * 4
    return new * numbers * dtype.size + scores + layer + text.vocab_size * 4 * 2
