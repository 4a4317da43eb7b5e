#!/usr/bin/env python
"""Measures the stream on this machine at the sizes of published models, with random weights.

It prints seconds of work a second of video, milliseconds a token, and the share of the bandwidth that a token uses.
With --conformance, the recorded cases of the published program run first. It is meant for a GPU, and runs on a CPU too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streaming_vlm_mlx import backend

MACHINE = backend.prepare()

import mlx.core as mx
from rich.console import Console
from rich.progress import track

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.config import ModelConfig, StreamConfig, TextConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.bench import BenchConfig, read_bench_config, run_stream
from streaming_vlm_mlx.models.convert_checkpoint import quantization_for
from streaming_vlm_mlx.models.sizes import PUBLISHED
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.bundle_loader import random_bundle
from tui.commands.bench import describe_machine

SIZES = ("Qwen2.5-VL 3B", "Qwen2.5-VL 7B")
HEIGHT, WIDTH = 360, 640
BITS = (2, 3, 4, 5, 6, 8)
CASES = Path(__file__).parents[1] / "tests" / "conformance.py"


@dataclass(frozen=True)
class Figures:
    """What one model came to; medians of the second half of the stream.

    Attributes:
        model: its name.
        weights: dtype or bits of its weights.
        seconds_a_second: seconds of work for a second of video.
        ms_a_token: milliseconds of decode a token, after the first of a second.
        read_mb: megabytes of weights, keys and values that a token reads.
        bandwidth_share: `read_mb` over what a copy moves in the same time.
        cache_tokens: tokens in the cache at the end.
        peak_mb: the most memory that MLX held.
    """

    model: str
    weights: str
    seconds_a_second: float
    ms_a_token: float
    read_mb: float
    bandwidth_share: float
    cache_tokens: int
    peak_mb: float


def weights_a_token(model: VisionLanguageModel) -> int:
    """Return the bytes of weights that one token reads: the layers of the decoder and the head."""
    words = "model.embed_tokens." if "lm_head" in model else None
    return sum(
        array.nbytes
        for name, array in model.named_arrays()
        if not name.startswith("visual.") and not (words and name.startswith(words))
    )


def cache_a_token(text: TextConfig, tokens: int, dtype: mx.Dtype) -> int:
    """Return the bytes of keys and values of `tokens` cached tokens."""
    return 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * tokens * dtype.size


def measure(name: str, config: BenchConfig, bits: int | None, seconds: int, bandwidth: float) -> Figures:
    """Run `seconds` seconds of `config` with weights in the device's dtype, or packed to `bits`."""
    mx.reset_peak_memory()
    quantize = (lambda model: quantization_for(model, bits)) if bits else None
    bundle = random_bundle(config.model, MACHINE.dtype, config.stream, config.seed, quantize)
    weights = f"{bits} bits" if bits else str(MACHINE.dtype).rpartition(".")[2]
    work = run_stream(config, bundle, "streaming", seconds)
    late = list(track(work, f"{name}, {weights}", total=seconds, console=Console(stderr=True), transient=True))
    late = late[len(late) // 2 :]
    # The first token of a second is chosen from the logits of its prefill.
    token = statistics.median(r.timings.decode_ms / max(r.tokens - 1, 1) for r in late)
    read = weights_a_token(bundle.model) + cache_a_token(config.model.text_config, late[-1].cache_tokens, MACHINE.dtype)
    return Figures(
        name,
        weights,
        statistics.median(r.timings.total_ms for r in late) / 1e3,
        token,
        read / 1e6,
        read / (token / 1e3) / bandwidth,
        late[-1].cache_tokens,
        mx.get_peak_memory() / 1e6,
    )


def main() -> int:
    """Run the cases and the models, print a line for each, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", action="append", choices=sorted(PUBLISHED), help=f"default: {' and '.join(SIZES)}")
    parser.add_argument("--config", type=Path, metavar="F", help="a model of configs/bench instead")
    parser.add_argument("--seconds", type=int, default=120, metavar="N", help="seconds of video a model (default 120)")
    parser.add_argument(
        "--bits", type=int, nargs="+", choices=(0, *BITS), default=[0, 4], help="0 is the device's dtype (default: 0 4)"
    )
    parser.add_argument("--conformance", type=Path, metavar="DIR", help="the folder of the recorded cases")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures and the machine")
    args = parser.parse_args()
    try:
        report(args)
    except SvmError as error:
        print(f"bench_device: {error}", file=sys.stderr)
        return 2
    return 0


def report(args: argparse.Namespace) -> None:
    """Run what `args` ask for, print a line for each model, and write the report.

    Raises:
        SvmError: an argument is out of range, a file cannot be read, or a recorded case is not met.
    """
    if args.seconds < 1:
        raise SvmError(f"--seconds is {args.seconds}; it must be 1 or more.")
    if args.conformance:
        check_cases(args.conformance)
    models = {name: of_size(PUBLISHED[name]) for name in args.size or SIZES}
    if args.config:
        models = {args.config.stem: read_bench_config(args.config)}
    bandwidth = backend.copy_bandwidth(time.perf_counter)
    print(f"A copy moves {bandwidth / 1e9:.1f} GB/s on {MACHINE.kind}.")
    written: dict[str, Any] = {"machine": describe_machine(MACHINE), "versions": backend.installed_versions()}
    written |= {"copy_bytes_per_s": bandwidth, "rows": []}
    for name, config in models.items():
        for bits in args.bits:
            figures = measure(name, config, bits or None, args.seconds, bandwidth)
            written["rows"].append(asdict(figures))
            print(
                f"{name}, {figures.weights}: {figures.seconds_a_second:.3f} s a second, {figures.ms_a_token:.1f} ms a "
                f"token, {figures.bandwidth_share:.0%} of the bandwidth, {figures.cache_tokens:,} tokens cached, "
                f"{figures.peak_mb:,.0f} MB"
            )
            if args.json:
                write_text(args.json, json.dumps(written, indent=1) + "\n")


def check_cases(folder: Path) -> None:
    """Run the recorded cases of `folder`; raise SvmError if there are none, or one is not met."""
    cases = sorted(path.stem for path in folder.glob("*.json") if not path.stem.endswith("model"))
    if not cases:
        raise SvmError(f"{folder} has no recorded cases; --conformance takes the folder of their JSON files.")
    done = subprocess.run([sys.executable, str(CASES), "--dir", str(folder), *cases], check=False)
    if done.returncode:
        raise SvmError("a recorded case is not met on this machine; figures of a wrong program are of no use.")


def of_size(model: ModelConfig) -> BenchConfig:
    """Return a stream of 360p frames for `model`, with the settings of StreamingVLM."""
    return BenchConfig(model, StreamConfig(), HEIGHT, WIDTH)


if __name__ == "__main__":
    sys.exit(main())
