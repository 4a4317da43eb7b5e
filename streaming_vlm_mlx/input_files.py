"""Files that others wrote: read up to a size, parsed as strict JSON, and which clips they may name."""

import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from streaming_vlm_mlx.errors import SvmError

# The largest file that is read in one piece. Ten hours of a session, or of captions, take a twentieth of it.
LARGEST = 64 << 20
# The latest time in seconds, thirty years of video.
LONGEST = 1e9
# The most values in JSON, each of which takes a hundred bytes of memory; twenty hours of a session have two million.
_MOST_VALUES = 3_000_000
# Most digits of a whole number in JSON; a float, which it may stand for, holds no more.
_DIGITS = 300
# The variable with the folder of the videos that records name, as StreamingVLM has it.
VIDEOS = "DATASET_PATH"


def open_file(path: Path) -> BinaryIO:
    """Open the regular file `path` for reading bytes.

    Raises:
        OSError: the file cannot be opened.
        SvmError: it is a pipe or a device, which may have no end.
    """
    # Opening a pipe would wait for its writer.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SvmError(f"{path} is not a regular file; name a file.")
    return file


def check_name(name: str, what: str, instead: str) -> str:
    """Return `name`, which a user gave for the clip, the session or `what` else it is called.

    Raises:
        SvmError: it is empty; the text says what to give `instead`.
    """
    if not name:
        raise SvmError(f"the name of the {what} is empty; give {instead}.")
    return name


def check_readable(path: Path) -> None:
    """Check, before any work, that the regular file `path` can be read.

    Raises:
        SvmError: it cannot, or is a pipe or a device.
    """
    try:
        open_file(path).close()
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error


def read_file(path: Path, largest: int = LARGEST) -> bytes:
    """Return the content of the regular file `path`.

    Raises:
        SvmError: the file cannot be read, is a pipe or a device, which may have no end, or is larger than `largest`.
    """
    try:
        with open_file(path) as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > largest:
        size = f"{largest >> 20} MB" if largest >> 20 else f"{largest >> 10} kB"
        raise SvmError(f"{path} is larger than {size}, too large for a file of its kind; name another.")
    return content


def parse_json(text: str | bytes) -> Any:
    """Parse the JSON `text`.

    Raises:
        ValueError: it is not JSON, is nested too deeply, has too many values, or a number that is not finite.
    """
    check_values(text)
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def check_values(text: str | bytes) -> None:
    """Check, before the JSON `text` is parsed, how many values it holds at most.

    Raises:
        ValueError: there are too many for the memory.
    """
    marks = map(text.count, ",[{") if isinstance(text, str) else map(text.count, (b",", b"[", b"{"))
    if sum(marks) > _MOST_VALUES:
        raise ValueError(f"it holds more than {_MOST_VALUES:,} values")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text:.20} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too large")
    return int(text)


def path_in_file(folder: Path, name: str) -> str:
    """Return the absolute path of the file that a text file in `folder` calls `name`.

    Whatever `name` is, the result is never an address or a device: what opens a clip takes both, but only a user on the
    command line may give them.

    Raises:
        SvmError: `name` is a device; the text completes "FILE names".
    """
    path = (folder / name).absolute()
    if Path("/dev") in path.parents:
        raise SvmError(f"{name}, a device; name devices on the command line.")
    return str(path)


def path_below(folder: Path, name: str, others: Iterable[Path] = ()) -> str:
    """Return `path_in_file` of `name`, which must be a file below `folder` or one of the folders `others`.

    A symbolic link below a folder is one that the user has made, and may lead elsewhere.

    Raises:
        SvmError: `name` is a device, or leaves the folders; the text completes "FILE names".
    """
    # Without "..", the file that is checked is the one that is opened.
    path = os.path.normpath(path_in_file(folder, name))
    # A folder can be spelt in two ways, through links and without them.
    spellings = ((os.path.normpath(root.absolute()), os.path.realpath(root)) for root in (folder, *others))
    if not any(Path(path).is_relative_to(root) for both in spellings for root in both):
        raise SvmError(f"{name}, which is not below {folder}; to allow that, set {VIDEOS} to the folder of the videos.")
    return path


def videos_folder(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the folder of videos in `environ`, or none."""
    return (Path(environ[VIDEOS]),) if environ.get(VIDEOS) else ()
