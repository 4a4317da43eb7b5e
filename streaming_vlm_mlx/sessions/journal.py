"""A session on disk while it runs: a line a second, so that a process that is killed loses at most the current one.

The first line is the record as it was at the beginning; every other line is one change of it: a second that was spoken,
one that was passed over, or settings that were changed.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped

SUFFIX = ".jsonl"


class Journal:
    """A session's journal, open for appending.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, record: SessionRecord) -> None:
        """Begin `path` with `record`.

        Raises:
            SvmError: the file exists, or cannot be written.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("x", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise SvmError(f"the journal {path} cannot be written: {error.strerror}.") from error
        self._append(record.to_dict())

    def speak(self, second: GenerationResult) -> None:
        """Append a second that was spoken.

        Raises:
            SvmError: the disk is full.
        """
        self._append({"spoken": second.to_dict()})

    def skip(self, second: Skipped) -> None:
        """Append a second that was passed over.

        Raises:
            SvmError: the disk is full.
        """
        self._append({"skipped": second.to_dict()})

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Append settings that were changed.

        Raises:
            SvmError: the disk is full.
        """
        self._append({"settings": settings})

    def close(self) -> None:
        """Close the file and leave it."""
        self._file.close()

    def discard(self) -> None:
        """Close the file and remove it: the session is kept elsewhere."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _append(self, values: Mapping[str, Any]) -> None:
        try:
            # What a killed process had flushed is the system's to keep.
            self._file.write(json.dumps(values, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise SvmError(f"the journal {self.path} cannot be written: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_session(path: Path) -> SessionRecord:
    """Read a session, or the journal of one that was killed, told by the file's name.

    Raises:
        SvmError: the file cannot be read, is no session, or is of a newer format.
    """
    return _read_journal(path) if path.suffix == SUFFIX else SessionRecord.load(path)


def _read_journal(path: Path) -> SessionRecord:
    try:
        first, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        record = SessionRecord.from_dict(_mapping(first))
        # What follows the last line feed was being written when the process ended.
        for line in lines[:-1]:
            record = _apply(record, _mapping(line))
    except OSError as error:
        raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
    except (SvmError, ValueError) as error:
        raise SvmError(f"{path}: {error}; choose the journal of a session of svm-tui.") from error
    return record


def _mapping(line: str) -> Mapping[str, Any]:
    values = json.loads(line)
    return values if isinstance(values, dict) else {}


def _apply(record: SessionRecord, values: Mapping[str, Any]) -> SessionRecord:
    if spoken := values.get("spoken"):
        return record.add(GenerationResult.from_dict(spoken))
    if skipped := values.get("skipped"):
        return record.skip(Skipped.from_dict(skipped))
    return replace(record, settings=values["settings"]) if "settings" in values else record
