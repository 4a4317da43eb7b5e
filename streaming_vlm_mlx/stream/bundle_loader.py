"""Loads the model of an engine: from a checkpoint folder, or with random weights."""

import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.checkpoint_files import read_eos_ids
from streaming_vlm_mlx.config import ModelConfig, StreamConfig
from streaming_vlm_mlx.distributed import ALONE, Ranks
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub_cache import checkpoint_name
from streaming_vlm_mlx.models.adapter_info import load_adapter
from streaming_vlm_mlx.models.adapters import check_base, open_adapter
from streaming_vlm_mlx.models.families import family_of
from streaming_vlm_mlx.models.loading import (
    Checkpoint,
    ModelBundle,
    arrange_for_decode,
    load_weights,
    open_checkpoint,
    read_model_config,
)
from streaming_vlm_mlx.models.memory_budget import check_fits, memory_limit
from streaming_vlm_mlx.models.quantization import kv_group_size
from streaming_vlm_mlx.models.sizes import seed_weights
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.quantization_config import QuantizationConfig
from streaming_vlm_mlx.stream.async_engine import Loader
from streaming_vlm_mlx.stream.events import Loading
from streaming_vlm_mlx.text.chat_template import STYLES, ChatTemplate
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary


def bundle_loader(
    folder: Path,
    dtype: mx.Dtype,
    config: StreamConfig,
    adapter: Path | None = None,
    join: Callable[[], Ranks] = lambda: ALONE,
    limit: int | None = None,
) -> Loader:
    """Return a loader of the checkpoint in `folder`.

    Args:
        folder: the checkpoint's folder.
        dtype: what the model computes in.
        config: the stream's settings; their style chooses the chat template.
        adapter: the folder of an adapter to attach, or None.
        join: returns the machines that share the model; called in the thread that uses them.
        limit: the most bytes that the stream may use on each machine; None for what this machine has. A model that
            needs more is refused before a weight is read.
    """

    def load(report: Callable[[Loading], None]) -> tuple[str, ModelBundle]:
        ranks = join()
        if adapter and ranks.size > 1:
            raise SvmError(f"{adapter} cannot be split over machines; fuse it into the weights with svm-tui fuse.")
        if config.kv_bits:
            kv_group_size(read_model_config(folder).text_config, config.kv_bits)
        info = open_checkpoint(folder)
        if info.config.vision_config:
            config.pixels.check_fits(info.config.vision_config)
        eos_ids = read_eos_ids(folder) if STYLES[config.style].generation_config else None
        room = memory_limit() if limit is None else limit
        on_gpu = mx.default_device().type != mx.DeviceType.cpu
        check_fits(info.model, folder, config, dtype, on_gpu, room, ranks.size)
        opened = open_adapter(adapter) if adapter else None
        if opened:
            check_base(opened, info)
        checkpoint = load_weights(
            info,
            dtype,
            lambda stage, done, total: report(Loading(stage, done, total)),
            ranks,
        )
        if opened:
            load_adapter(opened, info, dtype)
        arrange_for_decode(checkpoint.model)
        has_stamps = family_of(checkpoint.model.config).HAS_STAMPS
        template = ChatTemplate.of(checkpoint.tokenizer, config.style, config.system, has_stamps, eos_ids)
        return checkpoint_name(folder), ModelBundle(
            checkpoint.model, checkpoint.tokenizer, checkpoint.vocabulary, template, time.perf_counter, ranks
        )

    return load


def random_checkpoint(config: ModelConfig, dtype: mx.Dtype, stream: StreamConfig, seed: int) -> Checkpoint:
    """Return a model of any size with random weights drawn from `seed` and the full vocabulary, for benchmarks.

    Raises:
        SvmError: the vocabulary of the config is smaller than the tokenizer's.
    """
    tokenizer = Tokenizer.load()
    rows = config.text_config.vocab_size
    if rows < len(tokenizer):
        raise SvmError(f"vocab_size is {rows}; the tokenizer needs {len(tokenizer)} at least.")
    model = VisionLanguageModel(config)
    seed_weights(model, seed)
    model.set_dtype(dtype)
    return Checkpoint(model, tokenizer, FullVocabulary(rows), stream)


def random_bundle(
    model_config: ModelConfig,
    dtype: mx.Dtype,
    config: StreamConfig,
    seed: int,
    quantize: Callable[[VisionLanguageModel], QuantizationConfig] | None = None,
) -> ModelBundle:
    """Return `random_checkpoint`, packed as `quantize` says, and arranged for decoding.

    Raises:
        SvmError: as `random_checkpoint`.
    """
    made = random_checkpoint(model_config, dtype, config, seed)
    if quantize is not None:
        made.model.quantize(quantize(made.model))
        mx.eval(made.model.parameters())
    arrange_for_decode(made.model)
    template = ChatTemplate.of(made.tokenizer, config.style, config.system, family_of(model_config).HAS_STAMPS)
    return ModelBundle(made.model, made.tokenizer, made.vocabulary, template, time.perf_counter)
