"""Benchmark of the stream: the cost of a second with seeded random weights and moving frames, in four modes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import Mode, ModelConfig, StreamConfig
from streaming_vlm_mlx.config_io import FromDict, read_config, read_yaml
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.plots import drawing
from streaming_vlm_mlx.memory import read_memory
from streaming_vlm_mlx.stream.bundle_loader import random_bundle
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.video.image_processor import patchify


@dataclass(frozen=True)
class BenchConfig(FromDict):
    """A benchmark: sizes of the model, stream settings, frame size in pixels, and the seed of weights and frames."""

    model: ModelConfig = field(default_factory=ModelConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    height: int = 168
    width: int = 308
    seed: int = 0


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


def run_bench(config: BenchConfig, mode: Mode, seconds: int, dtype: mx.Dtype) -> Iterator[GenerationResult]:
    """Generate `seconds` seconds in `mode` and yield the record of each; image processing is not timed."""
    stream = replace(config.stream, mode=mode)
    session = Session(random_bundle(config.model, dtype, stream, config.seed), stream)
    for index in range(seconds):
        patches = patchify(frames_of(config, index), stream.pixels)
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
