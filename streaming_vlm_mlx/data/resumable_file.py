"""A file written piece by piece that a kill at any moment leaves ready to go on with."""

import glob
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError


class ResumableFile:
    """Grows beside its place under another name, with a note of how far it got, and moves there when it is whole.

    Only what lies before the last `checkpoint` counts: what was written behind it is written again.

    Attributes:
        progress: what the last checkpoint of the run that is gone on with said; None for a new run.
    """

    def __init__(self, path: Path, job: dict[str, Any], resume: bool) -> None:
        """Go on with what an earlier run of the same `job` left beside `path`, if `resume`, else begin anew.

        Args:
            path: where the file goes.
            job: JSON values that decide what is written; a run that differs in them cannot be gone on with.
            resume: whether to look for an earlier run; where there is none, a new one begins.

        Raises:
            SvmError: the earlier run was another job, or `path` cannot be written.
        """
        if path.is_dir():
            raise SvmError(f"{path} is a folder; name a file in it with --out.")
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._note = path.with_name(f".{path.name}.progress.json")
        self._job = json.loads(json.dumps(job))
        noted = self._noted() if resume else {}
        if noted and noted["job"] != self._job:
            raise SvmError(f"{path} was begun with other inputs or options; use those again, or leave out --resume.")
        self.progress: dict[str, Any] | None = noted.get("progress")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not noted:
                self._note.unlink(missing_ok=True)
                self._part.unlink(missing_ok=True)
            self._file = self._part.open("ab")
            self._file.seek(self._file.truncate(noted.get("bytes", 0)))
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

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
        """Make sure of all that was written so far, and note `progress`, JSON values, with it.

        Raises:
            SvmError: the disk is full.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        note = {"job": self._job, "bytes": self._file.tell(), "progress": progress}
        write_text(self._note, json.dumps(note))

    def finish(self, progress: dict[str, Any]) -> None:
        """Move the file to its place.

        Raises:
            SvmError: the disk is full.
        """
        self.checkpoint(progress)
        self._file.close()
        try:
            self._part.replace(self._path)
            self._note.unlink()
            # A kill in the middle of a checkpoint leaves the note's own temporary file.
            for stray in self._note.parent.glob(f".{glob.escape(self._note.name)}.*"):
                stray.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def _noted(self) -> dict[str, Any]:
        """Return the note of an earlier run, if its file bears it out."""
        try:
            noted: dict[str, Any] = json.loads(self._note.read_text(encoding="utf-8"))
            if {"job", "bytes", "progress"} <= noted.keys() and self._part.stat().st_size >= noted["bytes"]:
                return noted
        except (OSError, ValueError, TypeError, AttributeError):
            pass
        return {}

    def _unwritable(self, error: OSError) -> SvmError:
        return SvmError(f"{self._path} cannot be written: {error.strerror}. Choose another --out.")
