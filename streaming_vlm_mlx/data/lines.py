"""Where the lines of a big file begin: one pass over its bytes, eight bytes kept a line."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.errors import SvmError

_BLOCK = 1 << 20

Offsets = npt.NDArray[np.int64]


def line_starts(path: Path) -> tuple[Offsets, Offsets]:
    """Find the lines of `path` that are not empty.

    Returns:
        int64 [lines], the byte where each starts; int64 [lines], its number, counted from 1.

    Raises:
        SvmError: the file is absent or can not be read.
    """
    parts, size = [np.zeros(1, np.int64)], 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
                parts.append(ends + (size + 1))
                size += len(block)
    except OSError as error:
        raise SvmError(f"{path} can not be read: {error.strerror}.") from error
    starts = np.concatenate(parts)
    filled = np.flatnonzero(np.diff(starts, append=size) > 1)
    return starts[filled], filled + 1


def read_lines(path: Path, offsets: Offsets) -> Iterator[bytes]:
    """Yield the line that starts at each of `offsets`; a run of neighbours is read without seeking.

    Raises:
        SvmError: the file can not be read.
    """
    try:
        with path.open("rb") as file:
            here = 0
            for offset in map(int, offsets):
                if offset != here:
                    file.seek(offset)
                line = file.readline()
                here = offset + len(line)
                yield line
    except OSError as error:
        raise SvmError(f"{path} can not be read: {error.strerror}.") from error
