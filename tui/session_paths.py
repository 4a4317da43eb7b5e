"""Paths of the files that this program keeps: settings, journals, sessions, caches."""

import contextlib
import datetime
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.shipped import SAMPLE

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.sessions.record import SessionRecord

# In the working folder; a checkpoint's short name is looked up here.
CHECKPOINTS = Path("checkpoints")


def state_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder for the player's settings and for journals of sessions, by the XDG base directory rules."""
    return _base(environ, "XDG_STATE_HOME", home / ".local" / "state") / "svm-tui"


def cache_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder for files that can be made again, by the XDG base directory rules."""
    return _base(environ, "XDG_CACHE_HOME", home / ".cache") / "svm-tui"


def _base(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    """Return the folder in `variable`; by the rules a relative path is ignored."""
    named = environ.get(variable) or ""
    return Path(named) if named.startswith("/") else default


def new_record(
    clip: str,
    model: str,
    config: "StreamConfig",
    machine: Mapping[str, Any] = MappingProxyType({}),
    pace: str = "every",
) -> "SessionRecord":
    """Return the empty record of a session that starts now on `machine`, at the player's `pace`."""
    from streaming_vlm_mlx.backend import installed_versions
    from streaming_vlm_mlx.sessions.record import SessionRecord

    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return SessionRecord(
        created=created,
        clip=clip,
        model=model,
        settings=config.to_dict(),
        versions=installed_versions(),
        machine=dict(machine),
        pace=pace,
    )


def check_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Check, before any work, that `path` can be written and is none of `inputs`.

    Raises:
        SvmError: `path` is a folder or one of `inputs`, or its folder cannot be made or written.
    """
    from streaming_vlm_mlx.atomic import replacing

    if path.is_dir():
        raise SvmError(f"{path} is a folder; name a file in it.")
    if path.exists() and any(other.exists() and path.samefile(other) for other in inputs):
        raise SvmError(f"{path} is an input of this run; choose another name.")
    with contextlib.suppress(_Checked), replacing(path):
        raise _Checked


class _Checked(Exception):  # noqa: N818 - no error: it leaves the block before the file is replaced
    pass


def journal_path(clip: str, created: str) -> Path:
    """Return the place for a session's journal, without ending, in the state folder."""
    from streaming_vlm_mlx.sessions.subtitles import clip_name

    # The last number of an IP address is no ending.
    stem = re.sub(r"\.[a-z]\w*$", "", clip_name(clip)) if "://" in clip else Path(clip).stem
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-") or "feed"
    return state_folder(os.environ, Path.home()) / "sessions" / f"{name}.{_stamp(created)}"


def base_paths(out: Path | None, clip: str, created: str) -> tuple[Path, ...]:
    """Return the places for a session's files, without endings: `out` or beside the clip, then the state folder.

    The sample that comes with the package keeps no files beside it.
    """
    own = Path(clip).is_file() and not Path(clip).samefile(SAMPLE)
    beside = [Path(clip).with_suffix(f".{_stamp(created)}")] if own and "://" not in clip else []
    return (*([out.with_suffix("")] if out else beside), journal_path(clip, created))


def short_names(paths: Sequence[Path], home: Path, length: int = 50) -> str:
    """Return `paths` as a message shows them: one in full, of others in its folder the endings.

    The home folder is ``~``; in a path of more than `length` characters, folders in the middle are left out.
    """
    first, *others = paths
    name = _shortened(first, home, length)
    endings = [path.suffix if path.with_suffix("") == first.with_suffix("") else path.name for path in others]
    return " and ".join([name, *endings])


def _shortened(path: Path, home: Path, length: int) -> str:
    named = f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
    first, *rest = named.split("/")
    short, left_out = named, 0
    while len(short) > length and left_out < len(rest) - 1:
        left_out += 1
        short = "/".join([first, "…", *rest[left_out:]])
    return short


def _stamp(created: str) -> str:
    return created.split("+")[0].replace(":", "").replace("-", "").replace("T", "-")
