"""What the viewer keeps of a session."""

import math
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.background import BackgroundThread
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.plain_text import visible
from tui.player.screens.bookmarks import BookmarksScreen
from tui.player.screens.parts import PlayerPart
from tui.player.still import save_beside, save_image
from tui.player.transcript import time_label
from tui.player.widgets.timeline import Timeline
from tui.session_paths import short_names

if TYPE_CHECKING:
    from tui.player.clip import Pixels


class Saving(PlayerPart):
    """Saves the session, and sets bookmarks that are saved with it, and takes out lines and pictures."""

    def action_copy_line(self) -> None:
        """Copy the current line of the commentary to the clipboard, through the terminal (OSC 52)."""
        line = self.presenter.current_line()
        if line:
            self.app.copy_to_clipboard(line)
        self.note(f"copied: {line}" if line else "there is no commentary to copy yet.")

    def action_save_still(self) -> None:
        """Save the picture with the current line of the commentary as PNG."""
        if self.spec.open_grabber is None and self.feed_chunk is None:
            self.note("there is no picture to save.")
        else:
            self.run_worker(self._save_still(), name="still")

    async def _save_still(self) -> None:
        """Draw and write on a thread, since a large picture takes a while."""
        position, line = self.controller.playhead.position, self.presenter.current_line()
        worker = BackgroundThread("svm-still")
        try:
            path = await worker.run(partial(self._write_still, position, line))
            self.note(f"the picture is in {short_names([path], Path.home())}")
        except SvmError as error:
            self.note(str(error))
        finally:
            worker.close()

    def _write_still(self, position: float, line: str) -> Path:
        # Pillow takes a while to import.
        from streaming_vlm_mlx.sessions.drawing import draw_still

        time = time_label(position)
        image = draw_still(self._pixels(position), line, f"{visible(self.spec.clip)}  {time}")
        named = [place.with_name(f"{place.name}.{time.replace(':', '-')}") for place in self.spec.base_paths]
        return save_beside(named, ".png", partial(save_image, image))

    def _pixels(self, position: float) -> "Pixels":
        """Return the frame at `position` in the clip's own size; of a feed, the newest one.

        Raises:
            SvmError: there is none.
        """
        if self.spec.open_grabber is None:
            assert self.feed_chunk is not None
            pixels: Pixels = self.feed_chunk.frames[-1]
            return pixels
        with closing(self.spec.open_grabber()) as grabber:
            frame = grabber.at(position, self.spec.size)
        if frame is None:
            raise SvmError(f"there is no picture at {time_label(position)} to save.")
        return frame.pixels

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
        if self.spec.is_replay:
            self.note("a replay is not saved: svm-tui export makes other files of its session.")
            return
        try:
            paths = self.session.save()
        except SvmError as error:
            self.note(str(error))
        else:
            names = short_names(paths, Path.home()) if paths else ""
            self.note(f"saved as {names}" if names else "there is no commentary to save yet.")
