"""A session of the player on its way to disk: the journal while it runs, subtitles and JSON at its end."""

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


class SessionLog:
    """Holds a session's record, keeps its journal, and saves it; what cannot be written never stops the session.

    Attributes:
        record: the session so far.
    """

    def __init__(
        self,
        record: SessionRecord,
        base_paths: Iterable[Path],
        warn: Callable[[str], None],
        endings: Iterable[str] = ENDINGS,
    ) -> None:
        """Begin with `record`.

        Args:
            record: the session, empty.
            base_paths: where its files may lie, without suffixes, the best place first; the last holds the journal.
                None for a session that is not kept.
            warn: told of what cannot be written, once.
            endings: of the files to write.
        """
        self.record = record
        self._base_paths, self._endings = tuple(base_paths), tuple(endings)
        self._warn = warn
        self._paths: tuple[Path, ...] = ()
        self._journal: Journal | None = None
        self._journaled = bool(self._base_paths)

    def add(self, second: GenerationResult) -> None:
        """Enter a second that was spoken."""
        self.record = self.record.add(second)
        self._write_down(lambda journal: journal.speak(second))

    def skip(self, second: Skipped) -> None:
        """Enter a second that was skipped, unless an earlier take of it is there."""
        known = {s.start for s in self.record.seconds} | {s.start for s in self.record.skipped}
        if second.start not in known:
            self.record = self.record.skip(second)
            self._write_down(lambda journal: journal.skip(second))

    def configure(self, settings: dict[str, Any]) -> None:
        """Enter settings that were changed."""
        self.record = replace(self.record, settings=settings)
        self._write_down(lambda journal: journal.configure(settings))

    def fail(self, message: str) -> None:
        """Enter what the model ended with."""
        self.record = replace(self.record, failure=message)

    def save(self) -> tuple[Path, ...]:
        """Write the session and return its files; a second time over the first. Where nothing was said, write nothing.

        Raises:
            SvmError: no place can be written; the journal is left.
        """
        if not (self.record.seconds and self._base_paths):
            return ()
        failure: SvmError | None = None
        for paths in (
            [self._paths] if self._paths else (free_names(base_path, self._endings) for base_path in self._base_paths)
        ):
            try:
                for path in paths:
                    write(path, self.record)
            except SvmError as error:
                failure = failure or error
            else:
                self._paths = paths
                return paths
        kept = f" The session is in {self._journal.path}." if self._journal else ""
        raise SvmError(f"{failure}{kept}")

    def close(self) -> None:
        """End the journal: it goes if the session was saved, else it stays."""
        if self._journal and self._paths:
            self._journal.discard()
        elif self._journal:
            self._journal.close()

    def _write_down(self, change: Callable[[Journal], None]) -> None:
        if not self._journaled:
            return
        try:
            self._journal = self._journal or self._begin()
            change(self._journal)
        except SvmError as error:
            self._journaled = False
            self._warn(f"{error} The session is kept in memory until you quit.")

    def _begin(self) -> Journal:
        (path,) = free_names(self._base_paths[-1], [SUFFIX])
        return Journal(path, replace(self.record, seconds=(), skipped=()))


def free_names(base_path: Path, endings: Iterable[str]) -> tuple[Path, ...]:
    """Return `base_path` with each of `endings`, a number between them where one of these files exists."""
    endings = tuple(endings)
    names = (tuple(name.with_name(name.name + ending) for ending in endings) for name in _numbered(base_path))
    return next(paths for paths in names if not any(path.exists() for path in paths))


def _numbered(base_path: Path) -> Iterator[Path]:
    yield base_path
    yield from (base_path.with_name(f"{base_path.name}-{number}") for number in count(2))
