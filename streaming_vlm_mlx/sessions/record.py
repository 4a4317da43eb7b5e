"""The record of a session: the result of every second, the model and the settings."""

import bisect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped

VERSION = 2


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
        seconds: the last result of every second that has one, in the clip's order.
        skipped: the seconds that were skipped, in the clip's order.
        takes: earlier results of seconds that were played again, oldest first.
        failure: the message of the last failure, empty where there was none.
    """

    version: int = VERSION
    created: str = ""
    clip: str = ""
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    seconds: tuple[GenerationResult, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    takes: tuple[GenerationResult, ...] = ()
    failure: str = ""

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
        return super().from_dict(values)

    def to_json(self) -> str:
        """Return the record as JSON, ending with a line feed."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=1)
        # A path or a query may hold broken bytes as lone surrogates; JSON has its own escape for them.
        return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `to_json` wrote.

        Raises:
            SvmError: the file cannot be read, is not a session, or has a newer format.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SvmError(f"{path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise SvmError(f"{path} is not JSON ({error}); choose a file that svm-tui exported.") from error
        try:
            return cls.from_dict(values if isinstance(values, dict) else {})
        except SvmError as error:
            raise SvmError(f"{path}: {error}") from error


def _start(second: GenerationResult | Skipped) -> float:
    """Return the start of `second` to the millisecond, which identifies it: its takes share it."""
    return round(second.start, 3)
