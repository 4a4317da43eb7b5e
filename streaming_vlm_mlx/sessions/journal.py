"""A session on disk while it runs, a line a second: a killed process loses at most the second under way.

The first line is the record at that time. Every other line is one change: a second with its result, a skipped second,
changed settings, the bookmarks, or a failure.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import open_file, parse_json, read_file
from streaming_vlm_mlx.plain_text import safe_json
from streaming_vlm_mlx.sessions.record import LARGEST_SESSION, VERSION, SessionRecord, check_length
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped

SUFFIX = ".jsonl"
# Bytes of the longest first line of a journal.
_LONGEST_HEAD = 1 << 20


class Journal:
    """A session's journal, open for appending.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, record: SessionRecord) -> None:
        """Begin the file `path` with `record`.

        Raises:
            SvmError: the file exists, or cannot be written.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("x", encoding="utf-8")
        except OSError as error:
            raise SvmError(f"the journal {path} cannot be written: {error.strerror}.") from error
        try:
            self._append(record.to_dict())
        except SvmError:
            self.discard()
            raise

    def append_second(self, second: GenerationResult) -> None:
        """Append the result of a second.

        Raises:
            SvmError: the disk is full.
        """
        self._append({"spoken": second.to_dict()})

    def append_skipped(self, second: Skipped) -> None:
        """Append a second that was skipped.

        Raises:
            SvmError: the disk is full.
        """
        self._append({"skipped": second.to_dict()})

    def append_settings(self, settings: Mapping[str, Any]) -> None:
        """Append changed settings.

        Raises:
            SvmError: the disk is full.
        """
        self._append({"settings": settings})

    def append_bookmarks(self, positions: tuple[float, ...]) -> None:
        """Append all bookmarks, in seconds.

        Raises:
            SvmError: the disk is full.
        """
        self._append({"bookmarks": positions})

    def append_failure(self, message: str) -> None:
        """Append the message of a failure.

        Raises:
            SvmError: the disk is full.
        """
        self._append({"failure": message})

    def close(self) -> None:
        """Close the file and leave it."""
        # On a full disk the rest of a line is still buffered, and cannot be written now either.
        with suppress(OSError):
            self._file.close()

    def discard(self) -> None:
        """Close the file and remove it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _append(self, values: Mapping[str, Any]) -> None:
        try:
            # After the flush the line survives the end of this process.
            self._file.write(safe_json(json.dumps(values, ensure_ascii=False)) + "\n")
            self._file.flush()
        except OSError as error:
            raise SvmError(f"the journal {self.path} cannot be written: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_session(path: Path) -> SessionRecord:
    """Read a session, or the journal of one that was killed; the ending of the name tells which.

    Raises:
        SvmError: the file cannot be read, is not a session, or has a newer format.
    """
    return _read_journal(path) if path.suffix == SUFFIX else SessionRecord.load(path)


def is_journal(path: Path) -> bool:
    """Return whether the file `path` begins as a journal does, and not as a file of records."""
    try:
        with open_file(path) as file:
            values = parse_json(file.readline(_LONGEST_HEAD))
    except (OSError, SvmError, ValueError):
        return False
    return isinstance(values, dict) and "clip" in values and "seconds" in values


def _read_journal(path: Path) -> SessionRecord:
    content = read_file(path, LARGEST_SESSION)
    if not content:
        raise SvmError(f"{path} is empty: its session ended before the first second.")
    try:
        check_length(content.count(b"\n"))
        first, *lines = content.decode("utf-8", "replace").split("\n")
        # Whatever follows the last line feed is a line that the process did not finish.
        changes = list(map(_mapping, lines[:-1]))
        record = SessionRecord.from_dict(_mapping(first)).merge(filter(None, map(_second, changes)))
        for change in changes:
            match change:
                case {"settings": dict(settings)}:
                    record = replace(record, settings=settings)
                case {"bookmarks": list(positions)}:
                    marked = SessionRecord.from_dict({"version": VERSION, "bookmarks": positions})
                    record = replace(record, bookmarks=marked.bookmarks)
                case {"failure": str(message)}:
                    record = replace(record, failure=message)
    except (SvmError, ValueError) as error:
        raise SvmError(f"{path}: {str(error).rstrip('.')}; choose the journal of a session of svm-tui.") from error
    return record


def _mapping(line: str) -> Mapping[str, Any]:
    values = parse_json(line)
    return values if isinstance(values, dict) else {}


def _second(change: Mapping[str, Any]) -> GenerationResult | Skipped | None:
    """Return the second that `change` adds; None where it changes something else."""
    match change:
        case {"spoken": second}:
            return GenerationResult.from_dict(second)
        case {"skipped": second}:
            return Skipped.from_dict(second)
    return None
