"""The record of a session: the result of every second, the model and the settings."""

import bisect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from streaming_vlm_mlx.config_io import FromDict, demand
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import LONGEST, parse_json, read_file
from streaming_vlm_mlx.plain_text import safe_json
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped

VERSION = 2
# The largest file of a session that is read, and the most seconds in one: of a day.
LARGEST_SESSION, MOST_SECONDS = 80 << 20, 90_000


# The fields that hold seconds.
_PARTS = ("seconds", "skipped", "takes", "bookmarks")


@dataclass(frozen=True)
class SessionRecord(FromDict):
    """A session, as its JSON file holds it.

    Attributes:
        version: of the format; a reader refuses a newer one.
        created: when the session began, ISO 8601.
        clip: path or address of the video.
        model: name of the checkpoint.
        settings: the stream's settings, as `StreamConfig.to_dict` gives them.
        versions: of this program and its main dependencies.
        machine: what it ran on, by name.
        seconds: the last result of every second that has one, in the clip's order.
        skipped: the seconds that were skipped, in the clip's order.
        takes: earlier results of seconds that were played again, oldest first.
        failure: the message of the last failure, empty where there was none.
        pace: how the player chose seconds, ``live`` or ``every``; empty where it is not known.
        bookmarks: positions that the viewer marked, in seconds, in the clip's order.
    """

    version: int = VERSION
    created: str = ""
    clip: str = ""
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    seconds: tuple[GenerationResult, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    takes: tuple[GenerationResult, ...] = ()
    failure: str = ""
    pace: str = ""
    bookmarks: tuple[float, ...] = ()

    def check(self) -> None:
        """Check the bookmarks.

        Raises:
            SvmError: one is not a time in a clip.
        """
        for position in self.bookmarks:
            demand(-LONGEST <= position <= LONGEST, "a bookmark", position, "a time in a clip, in seconds")

    def toggle_bookmark(self, position: float) -> Self:
        """Return the record with a bookmark at `position` seconds, or without the one that is there."""
        return replace(self, bookmarks=tuple(sorted({*self.bookmarks} ^ {position})))

    def add(self, second: GenerationResult) -> Self:
        """Return the record with one more second; an earlier second with the same start becomes a take."""
        seconds = list(self.seconds)
        at = bisect.bisect_left(seconds, _start(second), key=_start)
        takes = self.takes
        if at < len(seconds) and _start(seconds[at]) == _start(second):
            takes = (*takes, seconds.pop(at))
        seconds.insert(at, second)
        skipped = tuple(s for s in self.skipped if _start(s) != _start(second))
        return replace(self, seconds=tuple(seconds), skipped=skipped, takes=takes)

    def skip(self, second: Skipped) -> Self:
        """Return the record with one more second that was skipped."""
        return replace(self, skipped=tuple(sorted((*self.skipped, second), key=_start)))

    def merge(self, changes: Iterable[GenerationResult | Skipped]) -> Self:
        """Return the record after `add` or `skip` for each of `changes`, in time that grows with their number."""
        seconds = {_start(second): second for second in self.seconds}
        skipped = {_start(second): second for second in self.skipped}
        takes = list(self.takes)
        for change in changes:
            start = _start(change)
            if isinstance(change, Skipped):
                skipped[start] = change
                continue
            if start in seconds:
                takes.append(seconds[start])
            seconds[start] = change
            skipped.pop(start, None)
        return replace(
            self,
            seconds=tuple(seconds[start] for start in sorted(seconds)),
            skipped=tuple(skipped[start] for start in sorted(skipped)),
            takes=tuple(takes),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `values`; unknown keys are ignored.

        Raises:
            SvmError: the version is newer than this program's, or a value is of another type than its field.
        """
        found = values.get("version")
        if not isinstance(found, int):
            raise SvmError("it is not a session, since it has no 'version'; choose a file that svm-tui exported.")
        if found > VERSION:
            raise SvmError(f"its session format {found} is newer than this program's ({VERSION}); update svm-tui.")
        check_length(sum(len(values.get(name) or ()) for name in _PARTS if isinstance(values.get(name), list)))
        return super().from_dict(values)

    def to_json(self) -> str:
        """Return the record as JSON, ending with a line feed."""
        return safe_json(json.dumps(self.to_dict(), ensure_ascii=False, indent=1)) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `to_json` wrote.

        Raises:
            SvmError: the file cannot be read, is not a session, or has a newer format.
        """
        try:
            values = parse_json(read_file(path, LARGEST_SESSION).decode("utf-8"))
        except ValueError as error:
            raise SvmError(f"{path} is not JSON ({error}); choose a file that svm-tui exported.") from error
        try:
            return cls.from_dict(values if isinstance(values, dict) else {})
        except SvmError as error:
            raise SvmError(f"{path}: {error}") from error


def check_length(seconds: int) -> None:
    """Check the number of `seconds`, skipped ones and takes of a session.

    Raises:
        SvmError: there are more than in a day.
    """
    if seconds > MOST_SECONDS:
        raise SvmError(f"it holds more than {MOST_SECONDS:,} seconds; cut it into shorter sessions.")


def _start(second: GenerationResult | Skipped) -> float:
    """Return the start of `second` to the millisecond, which identifies it: its takes share it."""
    return round(second.start, 3)
