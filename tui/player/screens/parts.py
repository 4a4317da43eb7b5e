"""What the parts of the player's screen share; each part holds the actions of one purpose."""

from typing import TYPE_CHECKING

from textual.screen import Screen

from streaming_vlm_mlx.sessions.session_log import SessionLog
from tui.player.controller import Controller
from tui.player.presenter import Presenter
from tui.player.spec import PlayerSpec

if TYPE_CHECKING:
    from streaming_vlm_mlx.video.chunk import Chunk


class PlayerPart(Screen[None]):
    """A part of the player's screen.

    Attributes:
        spec: the session's specification.
        session: gets every second.
        controller: plays the session; set when the screen is mounted.
        presenter: shows it; set when the screen is mounted.
        feed_chunk: the newest second of a feed.
    """

    controller: Controller
    presenter: Presenter
    feed_chunk: "Chunk | None" = None

    def __init__(self, spec: PlayerSpec, session: SessionLog) -> None:
        super().__init__()
        self.spec, self.session = spec, session

    def note(self, text: str, topic: str = "") -> None:
        """Show `text` to the viewer for a while; it replaces what was told on the same `topic`, if that is named."""
        self.presenter.note(text, topic=topic)
