"""A file that is written piece by piece and can be resumed after the process was killed."""

import glob
import io
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json, read_file


class ResumableFile:
    """Writes a hidden file beside the output, with a progress file, and moves it into place when it is complete.

    Resuming continues after the last `checkpoint`; later pieces are written again. The progress file stays beside a
    complete output, so that resuming a finished job is recognised.

    Attributes:
        progress: the progress value of the last checkpoint of the resumed run; None for a new run.
        is_finished: the output is complete already; nothing may be written.
    """

    def __init__(self, path: Path, job: dict[str, Any], resume: bool) -> None:
        """Resume an earlier run of the same `job`, or start a new one.

        Args:
            path: the output.
            job: JSON values that determine the output; a run with other values cannot be resumed.
            resume: whether to look for an earlier run; without one, a new run starts.

        Raises:
            SvmError: the earlier run was another job, or `path` cannot be written.
        """
        if path.is_dir():
            raise SvmError(f"{path} is a folder; name a file in it with --out.")
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._progress_file = path.with_name(f".{path.name}.progress.json")
        self._job = json.loads(json.dumps(job))
        saved = self._read_progress() if resume else {}
        if saved and saved["job"] != self._job:
            raise SvmError(f"{path} was started with other inputs or options; use those, or omit --resume.")
        self.progress: dict[str, Any] | None = saved.get("progress")
        self.is_finished = saved.get("finished") is not None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not saved:
                self._progress_file.unlink(missing_ok=True)
                self._part.unlink(missing_ok=True)
            self._file: BinaryIO = io.BytesIO() if self.is_finished else self._part.open("ab")
            self._file.seek(self._file.truncate(saved.get("bytes", 0) if not self.is_finished else 0))
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as failure:
            # What could not be written before cannot be written here either.
            if error is None:
                raise self._unwritable(failure) from failure

    def write(self, piece: bytes) -> None:
        """Append `piece`.

        Raises:
            SvmError: the disk is full.
        """
        try:
            self._file.write(piece)
        except OSError as error:
            raise self._unwritable(error) from error

    def checkpoint(self, progress: dict[str, Any]) -> None:
        """Flush everything to disk and save `progress`, JSON values.

        Raises:
            SvmError: the disk is full.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self._save_progress(progress, self._file.tell())

    def finish(self, progress: dict[str, Any]) -> None:
        """Move the file into place.

        Raises:
            SvmError: the disk is full.
        """
        self.checkpoint(progress)
        size = self._file.tell()
        self._file.close()
        try:
            self._part.replace(self._path)
            # A kill during a checkpoint leaves the temporary file of the progress file.
            for stray in self._progress_file.parent.glob(f".{glob.escape(self._progress_file.name)}.*"):
                stray.unlink()
            self._save_progress(progress, size, _stamp(self._path))
        except OSError as error:
            raise self._unwritable(error) from error

    def _save_progress(self, progress: dict[str, Any], size: int, finished: list[int] | None = None) -> None:
        saved = {"job": self._job, "bytes": size, "progress": progress, "finished": finished}
        write_text(self._progress_file, json.dumps(saved))

    def _read_progress(self) -> dict[str, Any]:
        """Return the saved progress of an earlier run if its file is still there, else an empty dictionary."""
        try:
            saved: dict[str, Any] = parse_json(read_file(self._progress_file).decode("utf-8"))
            if not {"job", "bytes", "progress"} <= saved.keys():
                return {}
            if saved.get("finished") is not None:
                return saved if _stamp(self._path) == saved["finished"] else {}
            if self._part.stat().st_size >= saved["bytes"]:
                return saved
        except (OSError, SvmError, ValueError, TypeError, AttributeError):
            pass
        return {}

    def _unwritable(self, error: OSError) -> SvmError:
        return SvmError(f"{self._path} cannot be written: {error.strerror}. Choose another --out.")


def _stamp(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
