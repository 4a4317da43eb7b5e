"""What a session leaves behind: every second that was spoken, and what it ran on."""

import bisect
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import Memory
from streaming_vlm_mlx.stream.events import SecondDone, Timings

VERSION = 1


@dataclass(frozen=True)
class SpokenSecond(FromDict):
    """One second of a session; the fields are those of `stream.events.SecondDone`."""

    index: int
    start: float
    end: float
    text: str
    tokens: int = 0
    video_tokens: int = 0
    cache_tokens: int = 0
    cache_bytes: int = 0
    query: str = ""
    timings: Timings | None = None
    memory: Memory | None = None
    noted: str = ""

    @classmethod
    def of(cls, done: "SecondDone | SpokenSecond") -> Self:
        """Return what is kept of `done`: all of it."""
        return cls(**{f.name: getattr(done, f.name) for f in dataclasses.fields(cls)})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `values`; unknown keys are ignored.

        Raises:
            SvmError: a second lacks its index, times or text, or a value is of another type than its field.
        """
        _require(values, "index", "start", "end", "text")
        timings, memory = (values.get(name) for name in ("timings", "memory"))
        return super().from_dict({**values, "timings": _figures(Timings, timings), "memory": _figures(Memory, memory)})


@dataclass(frozen=True)
class SkippedSecond(FromDict):
    """A second that nothing was said about, because a live feed had moved on."""

    index: int
    start: float
    end: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `values`; unknown keys are ignored.

        Raises:
            SvmError: a second lacks its index or times, or a value is of another type than its field.
        """
        _require(values, "index", "start", "end")
        return super().from_dict(values)


@dataclass(frozen=True)
class SessionRecord(FromDict):
    """A session, as its JSON file holds it.

    Attributes:
        version: of the format; a reader refuses a newer one.
        created: when the session began, ISO 8601.
        clip: path or address of the video.
        model: name of the checkpoint.
        settings: the stream's settings, as `StreamConfig.to_dict` gives them.
        versions: of this program and of what it runs on.
        seconds: the last take of every second that was spoken, in the clip's order.
        skipped: seconds that were passed over, in the clip's order.
        takes: earlier takes of seconds that were played again, oldest first.
        failure: the message that the session ended with; empty for a good end.
    """

    version: int = VERSION
    created: str = ""
    clip: str = ""
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    seconds: tuple[SpokenSecond, ...] = ()
    skipped: tuple[SkippedSecond, ...] = ()
    takes: tuple[SpokenSecond, ...] = ()
    failure: str = ""

    def add(self, done: SecondDone | SpokenSecond) -> Self:
        """Return the record with one more second; one that starts at the same time becomes an older take."""
        second = SpokenSecond.of(done)
        seconds = list(self.seconds)
        at = bisect.bisect_left(seconds, _start(second), key=_start)
        takes = self.takes
        if at < len(seconds) and _start(seconds[at]) == _start(second):
            takes = (*takes, seconds.pop(at))
        seconds.insert(at, second)
        skipped = tuple(s for s in self.skipped if _start(s) != _start(second))
        return replace(self, seconds=tuple(seconds), skipped=skipped, takes=takes)

    def skip(self, index: int, start: float, end: float) -> Self:
        """Return the record with one more second that was passed over, from `start` to `end` in seconds."""
        passed = (*self.skipped, SkippedSecond(index, start, end))
        return replace(self, skipped=tuple(sorted(passed, key=_start)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `values`; unknown keys are ignored.

        Raises:
            SvmError: the version is newer than this program's, or a value is of another type than its field.
        """
        found = values.get("version")
        if not isinstance(found, int):
            raise SvmError("it holds no session: its 'version' is missing; choose a file that svm-tui exported.")
        if found > VERSION:
            raise SvmError(f"its session format {found} is newer than this program's ({VERSION}); update svm-tui.")
        return super().from_dict(values)

    def to_json(self) -> str:
        """Return the record as JSON, one line end at its end."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=1)
        # A path or a query may hold broken bytes as lone surrogates; JSON has its own escape for them.
        return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `to_json` wrote.

        Raises:
            SvmError: the file cannot be read, is no session, or is of a newer format.
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


def _start(second: SpokenSecond | SkippedSecond) -> float:
    """Return where `second` starts, to the millisecond: two takes of one second start there."""
    return round(second.start, 3)


def _require(values: Mapping[str, Any], *names: str) -> None:
    absent = [name for name in names if values.get(name) is None]
    if absent:
        raise SvmError(f"a second lacks its {absent[0]}; choose a file that svm-tui exported.")


def _figures(kind: type[Timings] | type[Memory], values: object) -> object:
    """Return the `kind` that a file's mapping gives, 0 for what is missing; anything else as it is."""
    if not isinstance(values, Mapping):
        return values
    figures = {f.name: values.get(f.name, 0) for f in dataclasses.fields(kind)}
    for name, figure in figures.items():
        if isinstance(figure, bool) or not isinstance(figure, int | float):
            raise SvmError(f"{kind.__name__}.{name} is {figure!r}; it must be a number.")
    return kind(**figures)
