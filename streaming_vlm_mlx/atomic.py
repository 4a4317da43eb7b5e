"""Writes files and folders atomically: a reader sees the old content or the new, never a part of it."""

import contextlib
import ctypes
import errno
import glob
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError

if sys.platform != "win32":
    import fcntl

_AT_FDCWD = -100
_RENAME_EXCHANGE = _RENAME_SWAP = 2
# What the system answers where it, or the file system, cannot exchange two paths.
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; move it onto `path` when the block ends, remove it when the block fails.

    Where `path` is a symbolic link, its target is replaced and the link stays.

    Raises:
        SvmError: `path` is a folder or a device, its folder cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise SvmError(f"{path} is not a regular file; choose another path.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_strays(target)
        part = _temporary(target)
        # Unlike tempfile's, this file has the mode that the process's umask gives a new file.
        part.touch(exist_ok=False)
    except OSError as error:
        raise SvmError(f"{path} cannot be written: {_reason(error)}. Choose another path.") from error
    try:
        with _holding(part):
            yield part
            part.replace(target)
    except OSError as error:
        raise SvmError(f"{path} cannot be written: {_reason(error)}. {_way_out(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text` in UTF-8, atomically.

    Raises:
        SvmError: as `replacing`.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` when the block ends, and is removed if the block fails.

    Where `path` is a symbolic link to a folder, that folder is replaced and the link stays.

    Raises:
        SvmError: `path` is a file, the parent folder cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise SvmError(f"{path} is a file, not a folder; choose another path.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _recover(target)
        _remove_strays(target)
        part = _temporary(target)
        part.mkdir()
    except OSError as error:
        raise SvmError(f"{path} cannot be written: {_reason(error)}. Choose another path.") from error
    try:
        with _holding(part):
            yield part
            _move_folder(part, target)
    except OSError as error:
        raise SvmError(f"{path} cannot be written: {_reason(error)}. {_way_out(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths of one file system in a single step; return False where the system cannot do that.

    Raises:
        OSError: one of them does not exist, or its folder cannot be written.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        status = libc.renamex_np(*names, _RENAME_SWAP)
    elif sys.platform == "linux" and hasattr(libc, "renameat2"):
        status = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    else:
        return False
    code = ctypes.get_errno()
    if status and code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code), str(second))
    return not status


def _move_folder(part: Path, target: Path) -> None:
    """Move `part` onto `target`; a folder that was there is removed."""
    if not target.exists():
        part.rename(target)
    elif not exchange(part, target):
        old = part.with_name(f"{part.name}.old")
        try:
            target.rename(old)
            part.rename(target)
        finally:
            # An interrupt can come between the two renames.
            if old.exists() and not target.exists():
                old.rename(target)
            shutil.rmtree(old, ignore_errors=True)


def _recover(target: Path) -> None:
    """Put back what a process that was killed between the two renames of `_move_folder` has left."""
    left = [] if target.exists() else sorted(target.parent.glob(f".{glob.escape(target.name)}.*.old"))
    if left:
        with contextlib.suppress(FileNotFoundError):
            left[-1].rename(target)


def _remove_strays(target: Path) -> None:
    """Remove the temporary files and folders of `target` that processes have left which were killed."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}(\.old)?")
    for stray in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if name.fullmatch(stray.name) and not stray.is_symlink():
            with contextlib.suppress(OSError), _holding(stray) as unused:
                if unused and stray.is_dir():
                    shutil.rmtree(stray)
                elif unused and stray.is_file():
                    stray.unlink()


@contextmanager
def _holding(path: Path) -> Iterator[bool]:
    """Lock a file or folder for the block, at most until the process ends; yield False where another has it.

    Also yields False where nothing locks.
    """
    if sys.platform == "win32":
        yield False
        return
    # Opening a pipe would wait for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _temporary(target: Path) -> Path:
    """Return a name beside `target` that is not taken."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def _way_out(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "Free some space, or choose another path." if full else "Choose another path."


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
