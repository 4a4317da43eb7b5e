"""What the viewer keeps of a session."""

import math
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError
from tui.player.screens.bookmarks import BookmarksScreen
from tui.player.screens.parts import PlayerPart
from tui.player.transcript import time_label
from tui.player.widgets.timeline import Timeline
from tui.session_paths import short_names


class Saving(PlayerPart):
    """Saves the session, and sets bookmarks that are saved with it."""

    def action_copy_line(self) -> None:
        """Copy the current line of the commentary to the clipboard, through the terminal (OSC 52)."""
        line = self.presenter.current_line()
        if line:
            self.app.copy_to_clipboard(line)
        self.note(f"copied: {line}" if line else "there is no commentary to copy yet.")

    def action_bookmark(self) -> None:
        """Set a bookmark at the current second, or remove the one that is there."""
        position = float(math.floor(self.controller.playhead.position))
        kept = self.session.toggle_bookmark(position)
        self.query_one(Timeline).bookmark(self.session.record.bookmarks)
        self.note(f"{'bookmark at' if kept else 'no bookmark any more at'} {time_label(position)}")

    def action_bookmarks(self) -> None:
        """List the bookmarks; the one that the viewer chooses is played."""
        positions = self.session.record.bookmarks
        if not positions:
            self.note("there is no bookmark: b sets one at the current second.")
            return
        lines = [(position, self.presenter.transcript.said_from(math.floor(position))) for position in positions]
        self.app.push_screen(BookmarksScreen(lines), self._play_bookmark)

    def _play_bookmark(self, position: float | None) -> None:
        if position is not None:
            self.controller.seek(position)

    def action_save(self) -> None:
        """Save the session as it is now."""
        try:
            paths = self.session.save()
        except SvmError as error:
            self.note(str(error))
        else:
            names = short_names(paths, Path.home()) if paths else ""
            self.note(f"saved as {names}" if names else "there is no commentary to save yet.")
