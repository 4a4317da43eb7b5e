"""M-RoPE positions of text and video tokens (Qwen2-VL, arXiv 2409.12191; Qwen2.5-VL, arXiv 2502.13923).

Imports no MLX, so that samples for training can be built without it.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Grid = tuple[int, int, int]
Positions = npt.NDArray[np.int64]


def mrope_positions(pieces: Iterable[tuple[int, Grid | None]], start: int, steps_per_grid: float) -> Positions:
    """Return M-RoPE positions [3, n] on the axes time, row and column.

    Text counts up on all three axes. The patches of a video take (time, row, column) from the video's start mark, and
    the next token takes the largest position so far + 1.

    Args:
        pieces: the sequence in order: the number of tokens, and for a video the grid of its merged patches. A video has
            one token a patch between a start mark and an end mark.
        start: position of the first token.
        steps_per_grid: positions from one temporal step of a video to the next.
    """
    out = [np.zeros((3, 0), np.int64)]
    for size, grid in pieces:
        if grid is None:
            rows = np.broadcast_to(np.arange(start, start + size), (3, size))
        else:
            rows = _video_positions(grid, start, steps_per_grid)
        out.append(rows)
        start = int(rows.max()) + 1 if size else start
    return np.concatenate(out, axis=1, dtype=np.int64)


def _video_positions(grid: Grid, start: int, steps_per_grid: float) -> Positions:
    """Return positions [3, 1 + patches + 1] of the start mark, the patches and the end mark."""
    time, row, column = np.indices(grid).reshape(3, -1)
    patches = np.stack([np.floor(time * steps_per_grid).astype(np.int64), row, column]) + start + 1
    mark = np.full((3, 1), start)
    return np.concatenate([mark, patches, np.full((3, 1), patches.max() + 1)], axis=1)
