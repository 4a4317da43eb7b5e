"""Reads JSON Lines: validated fields of an object, and an index of line offsets for random access."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import LARGEST, LONGEST, check_values, open_file

# How many lines at the head of a file are read when not one of them can be used: the file is of another kind.
MOST_UNREADABLE = 100_000

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BadSampleError(SvmError):
    """A sample cannot be used.

    Attributes:
        reason: a few words that all samples with this fault share, for counting.
        detail: what is wrong with this sample; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def parse_json(line: bytes) -> Any:
    """Parse the JSON `line`.

    Raises:
        BadSampleError: it is not JSON, too large, or has half a surrogate pair.
    """
    try:
        if len(line) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST >> 20} MB")
        check_values(line)
        values = json.loads(line.decode("utf-8-sig"))
        if _SURROGATE.search(line):
            json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadSampleError("broken text", "half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise BadSampleError("not JSON", str(error)) from error
    return values


def seconds(values: dict[str, Any], key: str, default: float | None = None) -> float:
    """Return the time under `key`, a finite number from 0 up.

    Raises:
        BadSampleError: it is missing or another value.
    """
    value = values.get(key, default)
    if value is None:
        raise BadSampleError("missing key", key)
    if is_seconds(value):
        return float(value)
    raise BadSampleError("malformed value", f"{key} is {value!r:.40}")


def is_seconds(value: object) -> TypeGuard[float]:
    """Whether `value` is a time: a finite number from 0 up (JSON also has true, NaN and 1e999)."""
    return type(value) in (float, int) and 0 <= value < LONGEST  # type: ignore[operator]


def text(values: dict[str, Any], key: str, default: str | None = None) -> str:
    """Return the string under `key`; null counts as missing.

    Raises:
        BadSampleError: it is missing and has no default, or is another value.
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
    """Return the whole number from 0 up under `key`, 0 if it is missing.

    Raises:
        BadSampleError: it is another value.
    """
    value = values.get(key, 0)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise BadSampleError("malformed value", f"{key} is {value!r:.40}")


# Bytes read at a time when looking for lines.
BLOCK = 1 << 20

Offsets = npt.NDArray[np.int64]


def line_starts(path: Path, block: int = BLOCK) -> tuple[Offsets, Offsets]:
    """Find the non-empty lines of `path`, reading `block` bytes at a time.

    Returns:
        int64 [lines], byte offset of each line; int64 [lines], line number of each, from 1.

    Raises:
        SvmError: the file is missing or cannot be read.
    """
    offsets, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    # The start of the line under way, and the number of lines and bytes before this block.
    start, count, size = 0, 0, 0
    try:
        with open_file(path) as file:
            while content := file.read(block):
                ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + size
                starts = np.append(start, ends + 1)
                filled = np.flatnonzero(np.diff(starts) > 1)
                offsets.append(starts[filled])
                numbers.append(filled + (count + 1))
                start, count, size = int(starts[-1]), count + len(ends), size + len(content)
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
    # A single character at the end is no line of JSON.
    if size > start + 1:
        offsets.append(np.array([start], np.int64))
        numbers.append(np.array([count + 1], np.int64))
    return np.concatenate(offsets), np.concatenate(numbers)


def read_lines(path: Path, offsets: Offsets) -> Iterator[bytes]:
    """Yield the line at each of `offsets`; consecutive lines are read without seeking.

    Raises:
        SvmError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            here = 0
            for offset in map(int, offsets):
                if offset != here:
                    file.seek(offset)
                # What is longer is refused when it is parsed.
                line = file.readline(LARGEST + 1)
                here = offset + len(line)
                yield line
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
