"""What a client can read and set: each property by its name."""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

from streaming_vlm_mlx.audio.mixer import MOST_VOLUME
from streaming_vlm_mlx.config import SamplingConfig
from streaming_vlm_mlx.config_io import demand, describe_unknown
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.events import GenerationResult
from tui.player.frame_loader import RateLimiter
from tui.player.pace import PACES
from tui.player.playhead import SPEEDS, Playhead
from tui.player.screens.asking import HOTTEST, MOST_TOKENS
from tui.player.screens.player import PlayerScreen
from tui.player.sound import PlayerSound
from tui.player.spec import uses_query
from tui.player.widgets.prompt import one_line

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig

# Seconds of the transcript that are sent where none are named, and the most characters of a reply.
RECENT = 60.0
MOST_CHARACTERS = 64 << 10
# Times a second at most that the stream's settings change; each change is a line in the session's journal.
CHANGE_RATE = 2.0

WINDOWS = ("window", "text_round", "sink", "slide")
SAMPLING = tuple(f"sampling.{part.name}" for part in fields(SamplingConfig))
SETTINGS = ("query", *WINDOWS, "drop_still", *SAMPLING)
# The largest value of a setting, as on the keyboard.
LIMITS = {"sampling.temperature": HOTTEST, "sampling.max_new_tokens": MOST_TOKENS}


@dataclass(frozen=True)
class Property:
    """A value of the player.

    Attributes:
        read: returns it, given the arguments of `get`.
        write: sets it; None where it can only be read.
        changes: whether it can be observed.
    """

    read: Callable[..., object]
    write: Callable[[object], None] | None = None
    changes: bool = True


class Properties:
    """The properties of one player; everything happens on the event loop."""

    def __init__(self, screen: PlayerScreen, clock: Callable[[], float]) -> None:
        """Read and set what `screen` shows; `clock` returns seconds."""
        self._screen, self._controller = screen, screen.controller
        self._limiter = RateLimiter(clock)
        # Settings that are not applied yet.
        self._waiting: StreamConfig | None = None
        self._last: GenerationResult | None = None
        head = self._controller.playhead
        self._known = {
            "clip": Property(lambda: screen.spec.clip),
            "model": Property(lambda: screen.spec.model),
            "position": Property(lambda: round(head.position, 3)),
            "duration": Property(lambda: head.duration),
            "state": Property(lambda: head.state),
            "model_state": Property(lambda: self._controller.state.name.lower()),
            "speed": Property(lambda: head.speed, self._set_speed),
            "pace": Property(lambda: self._controller.pace, self._set_pace),
            "mute": Property(lambda: screen.sound and screen.sound.muted, self._set_mute),
            "voice": Property(lambda: screen.voice is not None, self._set_voice),
            "volume": Property(lambda: screen.sound and screen.sound.volume, self._set_volume),
            "delay": Property(lambda: round(self._controller.delay, 3)),
            "skipped": Property(lambda: screen.presenter.metrics.skipped),
            "figures": Property(self._figures),
            "transcript": Property(self._transcript, changes=False),
            "settings": Property(lambda: self._config.to_dict() if self._config else None),
            **{name: Property(*self._setting(name)) for name in SETTINGS},
        }

    @property
    def names(self) -> list[str]:
        """The names of all properties."""
        return list(self._known)

    def get(self, name: str, *arguments: object) -> object:
        """Return the value of `name`, plain; only the transcript takes arguments.

        Raises:
            SvmError: there is no such property, or it takes no such arguments.
        """
        found = self._find(name)
        if arguments and name != "transcript":
            raise SvmError(f"{name} takes no arguments; leave them out.")
        return found.read(*arguments)

    def set(self, name: str, value: object) -> object:
        """Set `name` and return the value that it has now.

        Raises:
            SvmError: there is no such property, it cannot be set, or not to `value`.
        """
        found = self._find(name)
        if found.write is None:
            raise SvmError(f"{name} cannot be set; what can be is {', '.join(self._settable())}.")
        found.write(value)
        self.tick()
        return found.read()

    def observable(self, name: str) -> bool:
        """Return whether changes of `name` can be followed.

        Raises:
            SvmError: there is no such property.
        """
        return self._find(name).changes

    def finish(self, second: GenerationResult) -> None:
        """Take the result of a second, for the figures."""
        self._last = second

    def tick(self) -> None:
        """Apply changed settings; of changes in a quick succession only the last one counts."""
        if self._waiting and self._limiter.allows(CHANGE_RATE):
            self._screen.configure(self._waiting)
            self._waiting = None

    def _find(self, name: str) -> Property:
        if name not in self._known:
            raise SvmError(describe_unknown(name, self._known).replace("setting", "property"))
        return self._known[name]

    def _settable(self) -> list[str]:
        return [name for name, found in self._known.items() if found.write]

    def _set_speed(self, value: object) -> None:
        demand(type(value) in (int, float) and value in SPEEDS, "speed", value, f"one of {', '.join(map(str, SPEEDS))}")
        assert isinstance(value, int | float)
        check_clip(self._controller.playhead, "change its speed")
        self._controller.change_speed(SPEEDS.index(value) - SPEEDS.index(self._controller.playhead.speed))

    def _set_pace(self, value: object) -> None:
        pace = next((pace for pace in PACES if pace == value), None)
        if pace is None:
            raise SvmError(f"pace can be {' or '.join(map(repr, PACES))}.")
        if pace == "every":
            check_clip(self._controller.playhead, "wait for the model")
        self._controller.change_pace(pace)

    @property
    def _sound(self) -> PlayerSound:
        if self._screen.sound is None:
            raise SvmError("there is no sound to set; start the player without --no-sound.")
        return self._screen.sound

    def _set_mute(self, value: object) -> None:
        demand(isinstance(value, bool), "mute", value, "true or false")
        self._sound.muted = bool(value)

    def _set_volume(self, value: object) -> None:
        is_volume = type(value) in (int, float) and isinstance(value, int | float) and 0 <= value <= MOST_VOLUME
        demand(is_volume, "volume", value, f"a number from 0 to {MOST_VOLUME}")
        assert isinstance(value, int | float)
        self._sound.volume = value

    def _set_voice(self, value: object) -> None:
        demand(isinstance(value, bool), "voice", value, "true or false")
        if value != (self._screen.voice is not None):
            self._screen.action_voice()
        if value and self._screen.voice is None:
            raise SvmError(f"no voice: {self._screen.voice_problem}")

    @property
    def _config(self) -> "StreamConfig | None":
        return self._waiting or self._screen.config

    def _setting(self, name: str) -> tuple[Callable[[], object], Callable[[object], None]]:
        """Return what reads and what sets a setting of the stream."""
        part, _, last = name.rpartition(".")

        def write(value: object) -> None:
            config = self._config
            if config is None:
                raise SvmError(f"{name} cannot be set: this commentary is recorded; play the clip with svm-tui play.")
            if name == "query":
                value = _query(config, value)
            changed = config.merged({part: {last: value}} if part else {last: value})
            self._check(name, value, _value(changed, name))
            if changed != config:
                self._waiting = changed

        return lambda: _value(self._config, name), write

    def _check(self, name: str, given: object, value: object) -> None:
        """Check the `value` that the setting `name` has, where a client gave `given`.

        The memory for the windows was checked when the player started; larger ones may not fit.

        Raises:
            SvmError: it is null where it must be a number, or too large.
        """
        # Settings read null as their default.
        demand(given is not None or value is None, name, given, "a number")
        limit = _value(self._screen.spec.config, name) if name in WINDOWS else LIMITS.get(name)
        if not isinstance(limit, int | float):
            return
        more = ", its value at the start (see --config)" if name in WINDOWS else ""
        demand(isinstance(value, int | float) and value <= limit, name, value, f"at most {limit:g}{more}")

    def _figures(self) -> dict[str, object] | None:
        """Return the measurements of the last second; None before the first."""
        if self._last is None:
            return None
        values = self._last.to_dict()
        return {key: value for key, value in values.items() if key not in ("text", "query", "notes")}

    def _transcript(self, first: object = None, last: object = None, *more: object) -> dict[str, object]:
        """Return the lines from second `first` on and before `last`, and where to go on if there are more."""
        for value in (first, last):
            demand(value is None or type(value) in (int, float), "a time", value, "a number of seconds")
        demand(not more, "transcript", list(more), "followed by two times at most")
        head = self._controller.playhead
        begin = float(first) if isinstance(first, int | float) else head.position - RECENT
        end = float(last) if isinstance(last, int | float) else math.inf
        seconds = self._controller.log.record.seconds
        lines: list[dict[str, object]] = []
        size = 0
        for second in seconds[bisect.bisect_left(seconds, begin, key=lambda s: s.start) :]:
            if second.start >= end:
                break
            size += len(second.text) + len(second.query) + len(second.notes)
            if lines and size > MOST_CHARACTERS:
                return {"lines": lines, "next": second.start}
            lines.append(describe_second(second))
        return {"lines": lines, "next": None}


def check_clip(playhead: Playhead, verb: str) -> None:
    """Check that what plays is a clip.

    Raises:
        SvmError: it is a feed, which cannot `verb`.
    """
    if refusal := playhead.refusal(verb):
        raise SvmError(refusal)


def describe_second(second: GenerationResult) -> dict[str, object]:
    """Return the words of `second`, under the names of the session's file."""
    return {
        "index": second.index,
        "start": second.start,
        "end": second.end,
        "text": second.text,
        "query": second.query,
        "answer": second.answer,
        "commentary": second.commentary,
        "notes": second.notes,
    }


def _value(config: "StreamConfig | None", name: str) -> object:
    """Return the setting `name`, with a dot before a part's; None where there are no settings."""
    return attrgetter(name)(config) if config else None


def _query(config: "StreamConfig", value: object) -> str:
    """Return `value` as a query that can be typed.

    Raises:
        SvmError: the model takes no query, or `value` is none.
    """
    if not uses_query(config):
        raise SvmError("query cannot be set: this checkpoint's training template has none; ask instead.")
    query = one_line(value) if isinstance(value, str) else ""
    demand(bool(query), "query", value, "a text")
    return query
