"""A session on its way to disk: the journal while it runs, the exports at its end."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.journal import SUFFIX, Journal
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import write
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped

ENDINGS = (".vtt", ".json")

Write = Callable[[Path, SessionRecord], None]


class SessionLog:
    """Holds a session's record, keeps its journal and saves its files.

    The journal begins with the first second that has a result. A disk that cannot be written never stops the session.

    Attributes:
        record: the session so far.
    """

    def __init__(
        self,
        record: SessionRecord,
        base_paths: Iterable[Path],
        warn: Callable[[str], None],
        endings: Iterable[str] = ENDINGS,
        journal: Path | None = None,
        overwrite: bool = False,
        write: Write = write,
    ) -> None:
        """Begin with `record`.

        Args:
            record: the session, empty.
            base_paths: the places for its files, without endings, the best place first; none for a session that is not
                kept.
            warn: called once with the error of a journal that cannot be written.
            endings: of the files to write.
            journal: the place for the journal, without ending; by default, or where it cannot be written, the last
                of `base_paths` that can.
            overwrite: whether to replace files that exist; otherwise a number makes the names new.
            write: writes the record into a file.
        """
        self.record = record
        self._base_paths, self._endings = tuple(base_paths), tuple(endings)
        self._warn, self._overwrite, self._write = warn, overwrite, write
        # Where the first place cannot be written, the others may be.
        self._journal_bases = tuple(filter(None, (journal, *reversed(self._base_paths)))) if self._base_paths else ()
        self._journal: Journal | None = None
        self._journal_failed = False
        self._paths: tuple[Path, ...] = ()
        self._saved: SessionRecord | None = None

    def add(self, second: GenerationResult) -> None:
        """Enter the result of a second."""
        self._begin_journal()
        self.record = self.record.add(second)
        self._append(lambda journal: journal.append_second(second))

    def skip(self, second: Skipped) -> None:
        """Enter a second that was skipped, unless the record knows one with that start."""
        known = {s.start for s in self.record.seconds} | {s.start for s in self.record.skipped}
        if second.start not in known:
            self.record = self.record.skip(second)
            self._append(lambda journal: journal.append_skipped(second))

    def configure(self, settings: dict[str, Any]) -> None:
        """Enter changed settings."""
        self.record = replace(self.record, settings=settings)
        self._append(lambda journal: journal.append_settings(settings))

    def toggle_bookmark(self, position: float) -> bool:
        """Set a bookmark at `position` seconds, or remove the one that is there; return whether it is set."""
        self.record = self.record.toggle_bookmark(position)
        marked = self.record.bookmarks
        self._append(lambda journal: journal.append_bookmarks(marked))
        return position in marked

    def fail(self, message: str) -> None:
        """Enter the message that the session failed with."""
        self.record = replace(self.record, failure=message)
        self._append(lambda journal: journal.append_failure(message))

    def save(self) -> tuple[Path, ...]:
        """Write the session's files and return their paths; later calls replace the same files.

        A session without results leaves no files.

        Raises:
            SvmError: no place can be written; the message says where the journal is.
        """
        if not self.record.seconds:
            return ()
        failure: SvmError | None = None
        for paths in self._places():
            try:
                for path in paths:
                    self._write(path, self.record)
            except SvmError as error:
                failure = failure or error
            else:
                self._paths, self._saved = paths, self.record
                return paths
        if failure is None:
            return ()
        part = "The first part of the session" if self._journal_failed else "The session"
        kept = f" {part} is in {self._journal.path}." if self._journal else ""
        raise SvmError(f"{failure}{kept}")

    def close(self) -> None:
        """Close the journal, and remove it when all of the session is saved."""
        if self._journal is None:
            return
        if self._saved is self.record:
            self._journal.discard()
        else:
            self._journal.close()

    def _places(self) -> Iterator[tuple[Path, ...]]:
        """Yield the files to write, for each place in turn."""
        if self._paths:
            yield self._paths
            return
        for base_path in self._base_paths:
            yield next(_names(base_path, self._endings)) if self._overwrite else free_names(base_path, self._endings)

    def _begin_journal(self) -> None:
        if self._journal or self._journal_failed:
            return
        failure: SvmError | None = None
        for base in self._journal_bases:
            try:
                (path,) = free_names(base, [SUFFIX])
                self._journal = Journal(path, self.record)
            except SvmError as error:
                failure = failure or error
            else:
                return
        if failure:
            self._give_up_journal(failure)

    def _append(self, change: Callable[[Journal], None]) -> None:
        if self._journal is None or self._journal_failed:
            return
        try:
            change(self._journal)
        except SvmError as error:
            self._journal.close()
            self._give_up_journal(error)

    def _give_up_journal(self, error: SvmError) -> None:
        self._journal_failed = True
        self._warn(f"{error} The session stays in memory until it is saved.")


def free_names(base_path: Path, endings: Iterable[str]) -> tuple[Path, ...]:
    """Return `base_path` with each of `endings`, with a number before them where one of these files exists."""
    return next(paths for paths in _names(base_path, tuple(endings)) if not any(path.exists() for path in paths))


def _names(base_path: Path, endings: tuple[str, ...]) -> Iterator[tuple[Path, ...]]:
    """Yield `base_path` with each of `endings`, then the same with the numbers from 2 on."""
    yield tuple(base_path.with_name(base_path.name + ending) for ending in endings)
    for number in count(2):
        yield tuple(base_path.with_name(f"{base_path.name}-{number}{ending}") for ending in endings)
