"""Files and folders that are there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it onto `path` when the block ends, remove it when the block fails.

    Raises:
        SvmError: `path` is a folder or a device, its folder cannot be written, or the disk is full.
    """
    if path.exists() and not path.is_file():
        raise SvmError(f"{path} is no regular file and is not replaced; choose another place.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise SvmError(f"{path} cannot be written: {_reason(error)}. Choose another place with --out.") from error
    part = Path(name)
    try:
        yield part
        # mkstemp makes files that only their owner reads; a file that replaces another keeps the usual mode.
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        raise SvmError(f"{path} cannot be written: {_reason(error)}.") from error
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
    """Yield an empty folder beside `path`; swap it in when the block ends, remove it when the block fails.

    Where `path` is a link to a folder, that folder is replaced and the link stays.

    Raises:
        SvmError: `path` is a file, the parent folder cannot be written, or the disk is full.
    """
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise SvmError(f"{path} is a file and is not replaced by a folder; choose another place.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise SvmError(f"{path} cannot be written: {_reason(error)}.") from error
    old = part.with_name(part.name + ".old")
    try:
        yield part
        part.chmod(0o777 & ~_umask())
        if path.exists():
            path.rename(old)
        part.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise SvmError(f"{path} cannot be written: {_reason(error)}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
