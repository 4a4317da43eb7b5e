"""What the viewer keeps of a session."""

from pathlib import Path

from streaming_vlm_mlx.errors import SvmError
from tui.player.screens.parts import PlayerPart
from tui.session_paths import short_names


class Saving(PlayerPart):
    """Saves the session."""

    def action_save(self) -> None:
        """Save the session as it is now."""
        try:
            paths = self.session.save()
        except SvmError as error:
            self.note(str(error))
        else:
            names = short_names(paths, Path.home()) if paths else ""
            self.note(f"saved as {names}" if names else "there is no commentary to save yet.")
