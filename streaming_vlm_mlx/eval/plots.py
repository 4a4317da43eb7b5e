"""Plots: matplotlib without a screen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def drawing(path: Path, width: float, height: float) -> "Iterator[Figure]":
    """Yield an empty figure of `width` by `height` inches; it is written to `path` as a PNG when the block ends.

    Raises:
        SvmError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SvmError("plots need matplotlib: pip install 'svm-tui[plot]'.") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)
