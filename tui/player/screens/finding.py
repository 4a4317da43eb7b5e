"""How the viewer finds what was said, and where they were."""

from streaming_vlm_mlx.sessions.session_log import SessionLog
from tui.player.screens.parts import PlayerPart
from tui.player.search import Match, find, nearest, step
from tui.player.spec import PlayerSpec
from tui.player.transcript import time_label
from tui.player.widgets.prompt import Field, Prompt
from tui.player.widgets.transcript_view import TranscriptView

# Topics of notes.
SEARCH, OFFER = "search", "offer"


class Finding(PlayerPart):
    """Search in what is shown of commentary and truth, and the position that the clip was left at."""

    def __init__(self, spec: PlayerSpec, session: SessionLog) -> None:
        super().__init__(spec, session)
        self._wanted = ""
        self._found: Match | None = None
        self._offered: float | None = None

    def action_find(self) -> None:
        """Ask what to search for."""
        places = "commentary and truth" if self.presenter.with_truth else "commentary"
        self.query_one(Prompt).ask("search", [Field(f"find in {places}", "find", self._wanted)])

    def action_find_next(self, steps: int) -> None:
        """Show the next match, or the one before for a negative number."""
        if self._found is None:
            self.action_find()
        else:
            self._find(steps)

    def offer(self, position: float) -> None:
        """Offer to go on at `position` seconds."""
        self._offered = position
        self.note(f"you left this clip at {time_label(position)}. enter: go on there", OFFER)

    def action_play_found(self) -> None:
        """Seek to the match that is shown, or to the position that is offered."""
        if self._found is not None:
            self.controller.seek(self._found.position)
        elif self._offered is not None:
            self.controller.seek(self._offered)
            self.presenter.dismiss(OFFER)
            self._offered = None

    def action_end_search(self) -> None:
        """Remove the mark of the match, and follow the newest line again."""
        self._found = None
        self.presenter.dismiss(SEARCH)
        view = self.query_one(TranscriptView)
        view.mark(None)
        view.follow()

    def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        """Search for what the viewer typed."""
        if event.purpose == "search":
            self._wanted, self._found = event.values[0], None
            if self._wanted:
                self._find(0)

    def _find(self, steps: int) -> None:
        """Show the match `steps` from the one that is shown; from the playhead without one."""
        here = self.controller.playhead.position
        matches = find(self.presenter.transcript, self._wanted, here, self.presenter.with_truth)
        if not matches:
            self._found = None
            self.query_one(TranscriptView).mark(None)
            self.note(f"“{self._wanted}” was not said so far.", SEARCH)
            return
        self._found = step(matches, self._found, steps) if self._found else nearest(matches, here)
        self.query_one(TranscriptView).mark(self._found.position)
        count = f"{matches.index(self._found) + 1} of {len(matches)}"
        place, time = self._found.place, time_label(self._found.position)
        text = f"“{self._wanted}” {count}: {time}, {place}. n, N: more, enter: play from there, esc: close"
        self.note(text, SEARCH)
