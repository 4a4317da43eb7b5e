"""What the viewer keeps of a session."""

from streaming_vlm_mlx.errors import SvmError
from tui.player.screens.parts import PlayerPart


class Saving(PlayerPart):
    """Saves the session."""

    def action_save(self) -> None:
        """Save the session as it is now."""
        try:
            paths = self.session.save()
        except SvmError as error:
            self.note(str(error))
        else:
            self.note("saved as " + " and ".join(map(str, paths)) if paths else "there is no commentary to save yet.")
