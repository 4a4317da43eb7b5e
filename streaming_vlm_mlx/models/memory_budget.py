"""Estimates the memory that a checkpoint needs under a stream's settings, before a weight is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.config import ModelConfig, StreamConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import available_memory, machine_memory
from streaming_vlm_mlx.models.attention import QUERY_BLOCK
from streaming_vlm_mlx.models.convert_checkpoint import quantization_for
from streaming_vlm_mlx.models.language import layers_at_once, round_up_capacity
from streaming_vlm_mlx.models.loading import open_checkpoint
from streaming_vlm_mlx.models.quantization import kv_group_size
from streaming_vlm_mlx.models.tensor_parallel import split_axis
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.chat_template import STYLES
from streaming_vlm_mlx.text.detokenizer import SCRATCH_TOKENS

GIB = 1 << 30
# Tokens of markup, time and question in a second, and of the head before the first.
_TURN, _HEAD = 48, 96
# Copies of the scores of a query block that a CPU holds; a GPU's kernel holds none.
_COPIES = 2


@dataclass(frozen=True)
class Budget:
    """Bytes that a stream needs at its fullest; with unbounded windows, after `rounds` seconds.

    Attributes:
        weights: the weights, in the dtype that the model computes in.
        cache: keys and values of `tokens` tokens.
        vision: activations of the vision tower for a second of the largest frames allowed.
        decoder: activations of a layer during prefill, with its temporary copy of the cache.
        tokens: tokens that the full windows keep.
        rounds: seconds in full windows.
        bounded: whether the settings bound the windows.
        machines: machines that share the model; all bytes are those of one machine.
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
        """Bytes at the peak."""
        return self.weights + self.cache + max(self.vision, self.decoder)

    def line(self) -> str:
        """Return the peak and its parts as text."""
        where = f" on each of {self.machines} machines" if self.machines > 1 else ""
        return (
            f"{_gib(self.peak)}{where} (weights {_gib(self.weights)}, cache {_gib(self.cache)}, "
            f"vision {_gib(self.vision)}, decoder {_gib(self.decoder)})"
        )


@dataclass(frozen=True)
class Change:
    """A way to need less memory: what to change, and the peak after that."""

    what: str
    peak: int


def budget_of(folder: Path, stream: StreamConfig, dtype: mx.Dtype, gpu: bool) -> tuple[ModelConfig, Budget]:
    """Return the config of the model in `folder` and its budget; reads only the headers of the weights.

    Raises:
        SvmError: the folder is damaged, or the settings do not fit the model.
    """
    model = open_checkpoint(folder).model
    return model.config, estimate(model, stream, dtype, gpu)


def check_fits(
    model: VisionLanguageModel,
    folder: Path,
    stream: StreamConfig,
    dtype: mx.Dtype,
    gpu: bool,
    limit: int,
    machines: int = 1,
) -> None:
    """Refuse a model that needs more than `limit` bytes on each of the `machines` that share it.

    Raises:
        SvmError: says what it needs and what to change.
    """
    budget = estimate(model, stream, dtype, gpu, machines)
    if budget.peak > limit:
        raise SvmError(f"{folder} {refusal(budget, ways_out(model.config, stream, dtype, gpu, machines), limit)}")


def check_trains(model: VisionLanguageModel, folder: Path, dtype: mx.Dtype, moving: int, limit: int) -> None:
    """Refuse to train a model whose weights, gradients and optimizer state need more than `limit` bytes.

    Args:
        model: the model; its weights need not be computed.
        folder: the checkpoint's folder, for the message.
        dtype: dtype of its weights in memory.
        moving: how many weights are trained; each has a gradient and AdamW's two means, in float32.
        limit: bytes available.

    Raises:
        SvmError: says what it needs and what needs less.
    """
    weights, learning = _weights(model, dtype), 3 * moving * mx.float32.size
    if weights + learning > limit:
        parts = f"weights {_gib(weights)}, gradients and AdamW's means {_gib(learning)}"
        way_out = "train adapters with --lora" if moving else "take fewer bits (svm-tui convert-ckpt --bits)"
        raise SvmError(
            f"{folder} needs more than {_gib(weights + learning)} to train ({parts}) and there are {_gib(limit)}; "
            f"{way_out}, or use a smaller model."
        )


def estimate(model: VisionLanguageModel, stream: StreamConfig, dtype: mx.Dtype, gpu: bool, machines: int = 1) -> Budget:
    """Estimate what `model` needs while it streams under `stream`, computing in `dtype`.

    Nothing is computed or read. When several machines share the model, this is what rank 0 needs.

    Raises:
        SvmError: the settings do not fit the model.
    """
    config = model.config
    rules, (rounds, bounded) = STYLES[stream.style], _rounds(stream)
    video = _video_tokens(config.vision_config, stream)
    turn = video + _TURN
    # The first turn may show several seconds.
    more = (rules.first_seconds - 1) * video
    kept = more + ((stream.sink or 0) + (stream.slide or 0) if rules.has_previous else 0)
    spoken = stream.sampling.max_new_tokens + (SCRATCH_TOKENS if stream.scratchpad else 0)
    seconds, tokens = rounds + 1, _HEAD + kept + (rounds + 1) * (turn + spoken)
    if rules.one_turn:
        said = (stream.slide or 0) + stream.text_round * spoken
        seconds, tokens = stream.window, _HEAD + _TURN + said + stream.window * video
    moves = stream.mode == "streaming" and stream.pos_mode == "shrink"
    text = config.text_config
    text = replace(text, num_key_value_heads=max(text.num_key_value_heads // machines, 1))
    new, seconds = (tokens, seconds) if stream.recomputes else (turn + _HEAD + kept, 1)
    deepstack = _deepstack(config, new, seconds * video, dtype)
    return Budget(
        weights=_weights(model, dtype, machines),
        cache=cache_nbytes(text, dtype, tokens, moves, stream.kv_bits),
        vision=_vision(config.vision_config, stream, dtype, gpu),
        decoder=_decoder(text, new, round_up_capacity(tokens), dtype, gpu) + deepstack,
        tokens=tokens,
        rounds=rounds,
        bounded=bounded,
        machines=machines,
    )


def cache_nbytes(
    config: TextConfig, dtype: mx.Dtype, tokens: int, keep_unrotated: bool = True, bits: int | None = None
) -> int:
    """Return the bytes of a KV cache with room for `tokens` tokens.

    Each layer holds keys and values, and with `keep_unrotated` the unrotated keys. With `bits`, each number takes so
    many, and each group of numbers a scale and a bias.

    Raises:
        SvmError: the model's keys do not divide into groups of `bits`.
    """
    blocks = config.num_hidden_layers * (3 if keep_unrotated else 2)
    numbers = config.num_key_value_heads * config.head_dim
    token = numbers * dtype.size
    if bits:
        token = numbers * bits // 8 + 2 * (numbers // kv_group_size(config, bits)) * dtype.size
    return blocks * round_up_capacity(tokens) * token


def ways_out(config: ModelConfig, stream: StreamConfig, dtype: mx.Dtype, gpu: bool, machines: int = 1) -> list[Change]:
    """Return changes that need less memory, one at a time and all together at the end."""

    def peak(config: ModelConfig, stream: StreamConfig) -> int:
        return estimate(VisionLanguageModel(config), stream, dtype, gpu, machines).peak

    found = []
    small = config
    if config.quantization is None:
        for bits in (8, 4):
            small = replace(config, quantization=quantization_for(VisionLanguageModel(config), bits))
            found.append(Change(f"'svm-tui convert-ckpt --bits {bits}'", peak(small, stream)))
    window, text_round = max(stream.window // 2, 1), max(stream.text_round // 2, 1)
    short = replace(stream, window=window, text_round=text_round)
    if stream.mode == "full":
        short = replace(stream, mode="streaming", pos_mode="shrink")
        found.append(Change("mode streaming and pos_mode shrink", peak(config, short)))
    elif short != stream:
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
    """Return the message for a model of `budget` that does not fit in `limit` bytes."""
    fitting = [f"{c.what} ({_gib(c.peak)})" for c in changes if c.peak <= limit]
    fits = f"what would fit: {', or '.join(fitting)}"
    way_out = f"{fits}." if fitting else "no setting makes it fit; use a smaller model."
    return f"needs {budget.line()} and there are {_gib(limit)}; {way_out}"


def memory_limit(device_info: Mapping[str, str | int] | None = None) -> int:
    """Return the bytes that a model can use on this machine.

    Args:
        device_info: what ``mx.device_info()`` says of the device, which None asks. Metal recommends a working set, CUDA
            says what is free on the GPU. A CPU says nothing; there it is what is free on the host.
    """
    info = mx.device_info() if device_info is None else device_info
    for key in ("max_recommended_working_set_size", "free_memory", "total_memory"):
        if key in info:
            return int(info[key])
    free = available_memory()
    return machine_memory() if free is None else free


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _rounds(stream: StreamConfig) -> tuple[int, bool]:
    """Return the seconds that are kept, 600 when everything is, and whether the settings bound them."""
    if stream.mode == "full":
        return 600, False
    keeps_all = STYLES[stream.style].has_previous and (stream.sink is None or stream.slide is None)
    return max(stream.window, stream.text_round), not keeps_all


def _video_tokens(vision: VisionConfig | None, stream: StreamConfig) -> int:
    """Return the largest number of tokens of a second's video."""
    if vision is None:
        return 0
    return _patches(stream) * _steps(stream) // stream.pixels.merge_size**2


def _patches(stream: StreamConfig) -> int:
    """Return the largest number of patches of one temporal step."""
    return int(stream.pixels.max_pixels // stream.pixels.patch_size**2)


def _steps(stream: StreamConfig) -> int:
    return max(math.ceil(stream.fps / stream.pixels.temporal_patch_size), 1)


def _weights(model: VisionLanguageModel, dtype: mx.Dtype, machines: int = 1) -> int:
    def nbytes(name: str, array: mx.array) -> int:
        size: int = array.size * (dtype if mx.issubdtype(array.dtype, mx.floating) else array.dtype).size
        return size if split_axis(name) is None else size // machines

    return sum(nbytes(name, array) for name, array in model.named_arrays())


def _vision(vision: VisionConfig | None, stream: StreamConfig, dtype: mx.Dtype, gpu: bool) -> int:
    if vision is None:
        return 0
    patches, steps = _patches(stream), _steps(stream)
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    # The residual and its norm; queries, keys and values, rotated and not; the gated feed-forward.
    numbers = 12 * vision.hidden_size + 4 * vision.intermediate_size
    scores = 0 if gpu else vision.num_heads * patches * 4 * _COPIES
    features = vision.features_width * dtype.size // vision.spatial_merge_size**2
    more = features if vision.deepstack_visual_indexes else 0
    return patches * steps * (2 * values * 4 + numbers * dtype.size + scores + more)


def _deepstack(config: ModelConfig, new: int, video: int, dtype: mx.Dtype) -> int:
    """Return the bytes of the DeepStack features of `video` tokens, and of what `new` tokens get behind one layer."""
    vision = config.vision_config
    if vision is None or not vision.deepstack_visual_indexes:
        return 0
    width = config.text_config.hidden_size
    return 2 * (video * (vision.features_width - width) + new * width) * dtype.size


def _decoder(text: TextConfig, new: int, capacity: int, dtype: mx.Dtype, gpu: bool) -> int:
    heads = text.num_attention_heads * text.head_dim
    numbers = 6 * text.hidden_size + 6 * heads + 4 * text.intermediate_size
    scores = 0 if gpu else text.num_attention_heads * min(new, QUERY_BLOCK) * capacity * 4 * _COPIES
    # Keys are rotated in float32; pruning and rotating hold the arrays of some layers twice.
    one = capacity * text.num_key_value_heads * text.head_dim
    layers = 4 * one * 4 * min(layers_at_once(one, gpu), text.num_hidden_layers)
    return new * numbers * dtype.size + scores + layers + text.vocab_size * 4 * 2
