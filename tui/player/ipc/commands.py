"""What a client can command, and what it is told of the player's events."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from streaming_vlm_mlx.config_io import demand, describe_unknown, shown
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import LONGEST
from streaming_vlm_mlx.stream.events import Failed, GenerationResult, Loading, Ready, SecondStarted, Skipped, TextPiece
from tui.player.controller import PlayerEvent, Seeked
from tui.player.frame_loader import RateLimiter
from tui.player.ipc.properties import Properties, check_clip, describe_second
from tui.player.ipc.protocol import Request
from tui.player.screens.player import PlayerScreen
from tui.player.states import State
from tui.player.widgets.prompt import one_line

# What can be observed beside properties: all events but pieces of text, and these.
EVENTS, TEXT = "events", "text"
# Stands for the value of what was not told yet.
UNTOLD = object()
# Questions of clients that may wait for their seconds: each has a second of its own.
MOST_QUESTIONS = 10
# Times a second at most that a client's command is noted on the screen.
NOTE_RATE = 0.25

SEEK_MODES = ("relative", "absolute", "absolute-percent")


class Observer(Protocol):
    """A client, as far as a command concerns it.

    Attributes:
        observed: names of what it follows, each with the value that it was told last.
    """

    observed: dict[str, object]


@dataclass(frozen=True)
class Command:
    """What a name does, its arguments as the documentation shows them, and its cost.

    Attributes:
        run: carries it out and returns the data of the reply.
        least: arguments that it needs.
        most: arguments that it takes.
        usage: the arguments in words.
        heavy: whether it makes the player draw or write more than a few values.
    """

    run: Callable[..., object]
    least: int = 0
    most: int = 0
    usage: str = ""
    heavy: bool = False


class Commands:
    """Carries out the requests of clients on one player; everything happens on the event loop."""

    def __init__(self, screen: PlayerScreen, quit_player: Callable[[], None], clock: Callable[[], float]) -> None:
        """Control `screen`; `quit_player` ends the player soon, `clock` returns seconds."""
        self.properties = Properties(screen, clock)
        self._screen, self._controller = screen, screen.controller
        self._note_limiter = RateLimiter(clock)
        self._questions: list[str] = []
        self._known = {
            "play": Command(partial(self._move, self._play), heavy=True),
            "pause": Command(partial(self._move, self._controller.pause), heavy=True),
            "toggle": Command(partial(self._move, self._controller.toggle), heavy=True),
            "step": Command(partial(self._move, self._controller.step), heavy=True),
            "seek": Command(self._seek, 1, 2, f"SECONDS [{'|'.join(SEEK_MODES)}]", heavy=True),
            "ask": Command(self._ask, 1, 1, "QUESTION", heavy=True),
            "playlist-next": Command(partial(self._go, 1), heavy=True),
            "playlist-prev": Command(partial(self._go, -1), heavy=True),
            "get": Command(self._get, 1, 3, "NAME"),
            "set": Command(self._set, 2, 2, "NAME VALUE"),
            "quit": Command(quit_player),
        }
        self._of_clients = {"observe": self._observe, "unobserve": self._unobserve}

    @property
    def names(self) -> list[str]:
        """The names of all commands."""
        return [*self._known, *self._of_clients]

    def run(self, request: Request, client: Observer) -> object:
        """Carry out `request` of `client` and return the data of the reply.

        Raises:
            SvmError: it cannot be carried out; the text says why and what can be.
        """
        if request.name in self._of_clients:
            return self._of_clients[request.name](client, request.arguments)
        command = self._known.get(request.name)
        if command is None:
            raise SvmError(describe_unknown(request.name, self.names).replace("setting", "command"))
        if not command.least <= len(request.arguments) <= command.most:
            raise SvmError(f"{request.name} takes {command.usage or 'no arguments'}; see docs/ipc.md.")
        return command.run(*request.arguments)

    def is_heavy(self, request: Request) -> bool:
        """Return whether `request` costs much more than an answer."""
        command = self._known.get(request.name)
        return command is not None and (command.heavy or request.arguments[:1] == ("transcript",))

    def status(self) -> dict[str, object]:
        """Return what the event ``state`` says."""
        return {name: self.properties.get(name) for name in ("state", "model_state", "speed", "pace")}

    def changes(self, client: Observer) -> Iterator[Mapping[str, object]]:
        """Yield what `client` observes and was not told yet: the player's status, and values of properties."""
        for name, told in tuple(client.observed.items()):
            if name == TEXT:
                continue
            value = self.status() if name == EVENTS else self.properties.get(name)
            if value != told:
                client.observed[name] = value
                if name == EVENTS:
                    yield {"event": "state", **self.status()}
                else:
                    yield {"event": "property-change", "name": name, "data": value}

    def describe(self, event: PlayerEvent) -> tuple[str, Mapping[str, object]] | None:
        """Return the observed name under which `event` is told, and what is told; None for what clients do not need."""
        match event:
            case TextPiece(index, text):
                return TEXT, {"event": "text", "index": index, "text": text}
            case Loading(stage, done, total):
                return EVENTS, {"event": "loading", "stage": stage, "done": done, "total": total}
            case Ready(checkpoint, parameters):
                return EVENTS, {"event": "ready", "model": checkpoint, "parameters": parameters}
            case SecondStarted(index, start, end):
                return EVENTS, {"event": "started", "index": index, "start": start, "end": end}
            case GenerationResult():
                delay = round(self._controller.delay, 3)
                return EVENTS, {"event": "second", **event.to_dict(), **describe_second(event), "delay": delay}
            case Skipped(index, start, end):
                return EVENTS, {"event": "skipped", "index": index, "start": start, "end": end}
            case Seeked(position):
                return EVENTS, {"event": "seek", "position": position}
            case Failed(message):
                return EVENTS, {"event": "failed", "message": message}
        return None

    def take(self, event: PlayerEvent) -> None:
        """Keep what commands need of `event`."""
        if isinstance(event, GenerationResult):
            self.properties.finish(event)
            if event.query in self._questions:
                self._questions.remove(event.query)

    def _move(self, move: Callable[[], None]) -> None:
        """Let the playhead go on or stop by `move`."""
        check_clip(self._controller.playhead, "be paused")
        move()

    def _play(self) -> None:
        if not self._controller.playhead.playing:
            self._controller.toggle()

    def _go(self, steps: int) -> None:
        if refusal := self._screen.refusal_to_go(steps):
            raise SvmError(refusal)
        self._screen.action_go(steps)

    def _seek(self, seconds: object, mode: object = SEEK_MODES[0]) -> object:
        if mode not in SEEK_MODES:
            raise SvmError(f"the mode of seek is {shown(mode)}; it can be {', '.join(SEEK_MODES)}.")
        if type(seconds) not in (int, float) or not isinstance(seconds, int | float) or abs(seconds) > LONGEST:
            raise SvmError(f"the target of seek is {shown(seconds)}; it must be a number of seconds, or of percent.")
        head = self._controller.playhead
        check_clip(head, "go back or forward")
        assert head.duration is not None
        start, unit = {"relative": (head.position, 1.0), "absolute": (0.0, 1.0)}.get(mode, (0.0, head.duration / 100))
        self._controller.seek(start + unit * seconds)
        return head.position

    def _ask(self, question: object) -> str:
        text = one_line(question) if isinstance(question, str) else ""
        demand(bool(text), "the question", question, "a text")
        if self._screen.config is None:
            raise SvmError("this commentary is recorded; play the clip with svm-tui play to ask.")
        if self._controller.state is State.UNAVAILABLE:
            raise SvmError("there is no model to ask; the player says why.")
        if len(self._questions) >= MOST_QUESTIONS:
            raise SvmError(f"{MOST_QUESTIONS} questions wait for their seconds already; ask later.")
        self._questions.append(text)
        self._controller.ask(text)
        self._note(f"asked: {text}")
        return text

    def _set(self, name: object, value: object) -> object:
        found = self.properties.set(_name(name), value)
        if name in ("mute", "volume"):
            self._tell(self._screen.show_volume)
        elif name != "voice":
            # Of the voice, the screen tells by itself.
            self._note(_describe(_name(name), found))
        return found

    def _get(self, name: object, *arguments: object) -> object:
        return self.properties.names if name == "properties" else self.properties.get(_name(name), *arguments)

    def _observe(self, client: Observer, names: tuple[object, ...]) -> list[str]:
        demand(bool(names), "the list of names", list(names), "properties, 'events' or 'text'")
        for name in map(_name, names):
            if name not in (EVENTS, TEXT) and not self.properties.observable(name):
                raise SvmError(f"{name} cannot be observed; get it.")
        client.observed.update(dict.fromkeys(map(_name, names), UNTOLD))
        return list(client.observed)

    def _unobserve(self, client: Observer, names: tuple[object, ...]) -> list[str]:
        for name in map(_name, names or tuple(client.observed)):
            client.observed.pop(name, None)
        return list(client.observed)

    def _note(self, text: str) -> None:
        self._tell(partial(self._screen.note, text))

    def _tell(self, tell: Callable[[], None]) -> None:
        """Have `tell` tell the viewer what a client did; not of each of many."""
        if self._note_limiter.allows(NOTE_RATE):
            tell()


def _describe(name: str, value: object) -> str:
    """Return the property `name` and its `value` as the screen shows them."""
    if name == "query":
        return f"the query is: {value}"
    if name == "speed":
        return f"speed {value:g}×"
    text = f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
    return f"{name.rpartition('.')[2]} {text}"


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise SvmError(f"the name is {shown(value)}; it must be a text.")
    return value
