"""Values read from somebody else's JSON: right, or refused with a word on what is wrong."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.errors import SvmError

LONGEST = 1e9  # seconds; thirty years of video
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BadSampleError(SvmError):
    """A sample that cannot be used.

    Attributes:
        reason: a few words that are the same for all samples with this fault, to count by.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def parse_json(line: bytes) -> Any:
    """Return what the JSON `line` says.

    Raises:
        BadSampleError: it is not JSON, or not whole characters.
    """
    try:
        values = json.loads(line.decode("utf-8-sig"))
        if _SURROGATE.search(line):
            json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadSampleError("broken text", "half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise BadSampleError("not JSON", str(error)) from error
    return values


def seconds(values: dict[str, Any], key: str, default: float | None = None) -> float:
    """Return the finite, non-negative number under `key`.

    Raises:
        BadSampleError: it is missing or something else.
    """
    value = values.get(key, default)
    if value is None:
        raise BadSampleError("missing key", key)
    if is_seconds(value):
        return float(value)
    raise BadSampleError("malformed value", f"{key} is {value!r:.40}")


def is_seconds(value: object) -> TypeGuard[float]:
    """Whether `value` is a number from 0 up that can be a time (JSON also knows true, NaN and 1e999)."""
    return type(value) in (float, int) and 0 <= value < LONGEST  # type: ignore[operator]


def text(values: dict[str, Any], key: str, default: str | None = None) -> str:
    """Return the string under `key`; null counts as missing.

    Raises:
        BadSampleError: it is missing without a default, or something else.
    """
    value = values.get(key)
    if value is None:
        value = default
    if value is None:
        raise BadSampleError("missing key", key)
    if not isinstance(value, str):
        raise BadSampleError("malformed value", f"{key} is {value!r:.40}")
    return value


def whole(values: dict[str, Any], key: str) -> int:
    """Return the whole number under `key`, 0 when it is missing.

    Raises:
        BadSampleError: it is something else, or negative.
    """
    value = values.get(key, 0)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise BadSampleError("malformed value", f"{key} is {value!r:.40}")


_BLOCK = 1 << 20

Offsets = npt.NDArray[np.int64]


def line_starts(path: Path) -> tuple[Offsets, Offsets]:
    """Find the lines of `path` that are not empty.

    Returns:
        int64 [lines], the byte where each starts; int64 [lines], its number, counted from 1.

    Raises:
        SvmError: the file is absent or cannot be read.
    """
    parts, size = [np.zeros(1, np.int64)], 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
                parts.append(ends + (size + 1))
                size += len(block)
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
    starts = np.concatenate(parts)
    filled = np.flatnonzero(np.diff(starts, append=size) > 1)
    return starts[filled], filled + 1


def read_lines(path: Path, offsets: Offsets) -> Iterator[bytes]:
    """Yield the line that starts at each of `offsets`; a run of neighbours is read without seeking.

    Raises:
        SvmError: the file cannot be read.
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
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
