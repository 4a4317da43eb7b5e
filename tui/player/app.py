"""The player's Textual app."""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textual import events
from textual.app import App, SystemCommand
from textual.driver import Driver
from textual.screen import Screen
from textual.theme import Theme

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.session_log import SessionLog
from streaming_vlm_mlx.sessions.subtitles import write
from tui.player.graphics.drawing import CLEAR
from tui.player.keymap import key_label
from tui.player.screens.player import PlayerScreen
from tui.player.spec import PlayerSpec
from tui.player.still import save_beside
from tui.player.widgets.picture import Picture
from tui.player.widgets.prompt import CLOSING_KEYS, PromptLine
from tui.session_paths import short_names

if TYPE_CHECKING:
    from tui.player.ipc.server import Server
    from tui.player.ipc.socket_file import SocketFile

# Accent colours by Okabe and Ito, which colour-blind viewers can tell apart.
NIGHT = Theme(
    name="floodlight",
    primary="#56b4e9",
    secondary="#009e73",
    accent="#e69f00",
    warning="#e69f00",
    error="#d55e00",
    success="#009e73",
    foreground="#d8dee9",
    background="#0d1117",
    surface="#131a22",
    panel="#1c2530",
    dark=True,
    variables={"muted": "#8b949e"},
)
DAY = Theme(
    name="daylight",
    primary="#0072b2",
    secondary="#00714f",
    accent="#9a5b00",
    warning="#9a5b00",
    error="#b34700",
    success="#00714f",
    foreground="#1b2430",
    background="#fbfaf7",
    surface="#f2f0ea",
    panel="#e4e1d8",
    dark=False,
    variables={"muted": "#5f6b7a"},
)
OWN_THEMES = (NIGHT, DAY)
# The command palette sorts by title: these words keep together what belongs together.
GROUPS = {
    "play": "play",
    "go": "play",
    "step": "play",
    "speed": "play",
    "pace": "play",
    "reconnect": "play",
    "mute": "sound",
    "volume": "sound",
    "voice": "sound",
    "seek_by": "seek",
    "seek_to": "seek",
    "ask": "commentary",
    "query": "commentary",
    "sampling": "commentary",
    "find": "find",
    "find_next": "find",
    "play_found": "find",
    "end_search": "find",
    "truth": "view",
    "picture": "view",
    "picture_alone": "view",
    "scratchpad": "view",
    "stats": "view",
    "scroll": "view",
    "help": "view",
    "save": "session",
    "copy_line": "session",
    "save_still": "session",
    "bookmark": "session",
    "bookmarks": "session",
    "app.suspend_process": "session",
    "app.quit": "session",
}


class ClearingDriver(Driver):
    """Removes Kitty's images from the terminal before the player leaves it, or is suspended."""

    def stop_application_mode(self) -> None:
        """Give the terminal back."""
        self.write(CLEAR)
        super().stop_application_mode()  # type: ignore[safe-super]


class PlayerApp(App[None]):
    """Shows the session of a `PlayerSpec`.

    Attributes:
        session: the session that is played, to be finished when the player has ended.
        socket_file: where other programs control the player; None, or to be set before it runs.
        server: what serves it while the player runs.
        saved: the files of the sessions that are finished.
    """

    TITLE = "svm-tui"
    # Textual does not load the CSS_PATH of the first screen.
    CSS_PATH = "screens/player.tcss"
    DEFAULT_MODE = "clip 1"

    def __init__(
        self,
        spec: PlayerSpec,
        theme: str = NIGHT.name,
        clock: Callable[[], float] = time.perf_counter,
        auto_tick: bool = True,
    ) -> None:
        """Prepare to show `spec` in `theme`; `clock` and `auto_tick` are those of `PlayerScreen`."""
        super().__init__()
        if spec.display.mode == "kitty":
            self.driver_class = type("ClearingDriver", (ClearingDriver, self.driver_class), {})
        self._spec, self._clock, self._auto_tick = spec, clock, auto_tick
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._end_status: int | None = None
        self.socket_file: SocketFile | None = None
        self.server: Server | None = None
        self.session = self._begin(spec)
        self.saved: tuple[Path, ...] = ()
        # Clips that were opened so far.
        self._clips = 1
        self.add_mode(self.DEFAULT_MODE, self._player_screen)
        for own in OWN_THEMES:
            self.register_theme(own)
        self.theme = theme

    def on_mount(self) -> None:
        """Let `end` reach the event loop, take the viewer's keys, and draw everything after a suspension."""
        self._event_loop = asyncio.get_running_loop()
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        self.set_keymap(dict(self._spec.keymap))
        if self._end_status is not None:
            self.exit(return_code=self._end_status)

    async def on_ready(self) -> None:
        """Take what was typed before, and serve the socket, once there is a controller."""
        for character in self._spec.typed:
            self.simulate_key(character)
        screen = self.screen_stack[0]
        if self.socket_file and isinstance(screen, PlayerScreen):
            # Not imported for every player.
            from tui.player.ipc.server import TICK_RATE, open_server

            self.server = await open_server(self.socket_file, screen, partial(self.end, 0), self._clock)
            if self._auto_tick:
                self.set_interval(1 / TICK_RATE, self.server.tick)

    def on_unmount(self) -> None:
        """Leave the clients."""
        if self.server:
            self.server.close()

    def end(self, status: int) -> None:
        """Quit with the exit status `status` as on the key q; from any thread, at any time."""
        self._end_status = status
        if self._event_loop is not None:
            # The loop is closed when the player has just ended.
            with suppress(RuntimeError):
                self._event_loop.call_soon_threadsafe(partial(self.exit, return_code=status))

    def finish(self) -> None:
        """Save and close the session that is played, and close what keeps its feed; the files are in `saved`.

        Raises:
            SvmError: the session cannot be saved.
        """
        self._finish(self._spec, self.session)

    def _begin(self, spec: PlayerSpec) -> SessionLog:
        save = partial(write, per_second=spec.per_second)
        places = () if spec.is_replay else spec.base_paths
        return SessionLog(spec.record, places, self._note, spec.endings, write=save)

    def _finish(self, spec: PlayerSpec, session: SessionLog) -> None:
        try:
            self.saved += tuple(session.save())
        finally:
            session.close()
            self.saved += tuple(spec.recording.close()) if spec.recording else ()

    async def on_switching_opened(self, event: PlayerScreen.Opened) -> None:
        """Play the clip that was opened, then save the session of the one before."""
        spec, session, notes = self._spec, self.session, list(event.refusals)
        left = self.screen_stack[0]
        assert isinstance(left, PlayerScreen)
        self.workers.cancel_node(left)
        self._spec = left.heard_alike(event.spec)
        self.session = self._begin(self._spec)
        # Each clip is a mode of its own, since Textual cannot replace the screen below all others.
        self._clips += 1
        before, now = self.current_mode, f"clip {self._clips}"
        self.add_mode(now, self._player_screen)
        await self.switch_mode(now)
        screen = self.screen_stack[0]
        if self.server and isinstance(screen, PlayerScreen):
            self.server.follow(screen)
        await self.remove_mode(before)
        # Only now nothing more can come to it.
        try:
            self._finish(spec, session)
        except SvmError as error:
            notes.append(str(error))
        for note in notes:
            self._note(note)
        if left.still_to_go and isinstance(screen, PlayerScreen):
            screen.action_go(left.still_to_go)

    def _player_screen(self) -> PlayerScreen:
        return PlayerScreen(self._spec, self.session, self._clock, self._auto_tick)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the colours that Textual's own themes do not define."""
        return {"muted": "#7d8590"}

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield the entries of the command palette: everything that has a key here, themes, a screenshot."""
        if isinstance(screen, PlayerScreen):
            for binding in screen.offered:
                if binding.show:
                    keys = " ".join(map(key_label, binding.key.split(",")))
                    action = binding.action if binding.action.startswith("app.") else f"screen.{binding.action}"
                    group = GROUPS[binding.action.partition("(")[0]]
                    yield SystemCommand(
                        f"{group}: {binding.description}", f"key {keys}", lambda a=action: self.run_action(a)
                    )
        yield SystemCommand("view: theme", "choose the colours", self.action_change_theme)
        yield SystemCommand("session: screenshot", "save the screen as SVG", self.save_screen)

    def export_screenshot(self, *, title: str | None = None, simplify: bool = False) -> str:
        """Return the screen as SVG, with the picture drawn as text."""
        pictures = self.screen_stack[0].query(Picture)
        try:
            for picture in pictures:
                picture.exact = True
                picture.refresh()
            return super().export_screenshot(title=title, simplify=simplify)
        finally:
            for picture in pictures:
                picture.exact = False
                picture.refresh()

    def save_screen(self) -> None:
        """Save the screen beside the session, and say where; Textual saves to a folder that may not exist."""
        screen = self.export_screenshot(title=self._spec.clip)
        try:
            path = save_beside(self._spec.base_paths, ".svg", lambda path: write_text(path, screen))
        except SvmError as error:
            self._note(str(error))
        else:
            self._note(f"the screen is in {short_names([path], Path.home())}")

    def on_key(self, event: events.Key) -> None:
        """Forward keys that were typed after ``/``, but before its line was open, to that line."""
        line = self.focused
        # A focused line consumes such keys; one that arrives here did not pass the line.
        if isinstance(line, PromptLine) and (event.is_printable or event.key in CLOSING_KEYS):
            event.prevent_default()
            # With the line as the sender it bubbles up again, should the line close meanwhile.
            line.post_message(events.Key(event.key, event.character).set_sender(line))

    def _note(self, text: str) -> None:
        screen = self.screen_stack[0]
        assert isinstance(screen, PlayerScreen)
        screen.note(text)
