"""Pictures of figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from streaming_vlm_mlx.measure.bench import BenchSecond
from streaming_vlm_mlx.measure.drawing import drawing


def plot_bench(runs: Mapping[str, Sequence[BenchSecond]], path: Path) -> None:
    """Draw each mode's seconds of work and its cached tokens over the stream's time, as a PNG at `path`.

    Raises:
        SvmError: matplotlib is not installed, or the file can not be written.
    """
    with drawing(path, 9, 6) as figure:
        cost, cache = figure.subplots(2, 1, sharex=True)
        for mode, seconds in runs.items():
            index = [s.index for s in seconds]
            cost.plot(index, [s.total_s for s in seconds], label=mode, linewidth=1)
            cache.plot(index, [s.cache_tokens for s in seconds], label=mode, linewidth=1)
        cost.axhline(1.0, color="gray", linewidth=0.8, linestyle=":")
        cost.set_ylabel("seconds of work a second")
        cache.set_ylabel("tokens in the cache")
        cache.set_xlabel("seconds of video")
        cost.legend()
