"""The keys of the sound."""

from tui.player.screens.parts import PlayerPart
from tui.player.sound import PlayerSound

# Percent by which the volume changes.
VOLUME_STEP = 10
# Seconds for which the volume is shown.
SHOWN = 2.0


class Sounding(PlayerPart):
    """Plays the clip's sound.

    Attributes:
        sound: plays it; None without sound.
    """

    sound: PlayerSound | None = None

    def start_sound(self) -> None:
        """Start the sound, which nothing waits for."""
        if self.sound:
            self.follow_playhead()
            self.sound.start()

    def follow_playhead(self) -> None:
        """Let the sound go where the playhead goes, and the top line show whether it is heard."""
        if self.sound:
            self.sound.follow(self.controller.playhead.motion)
            self.presenter.muted = self.sound.muted

    def close_sound(self) -> None:
        """End the sound."""
        if self.sound:
            self.sound.close()

    def action_mute(self) -> None:
        """Mute the sound, or let it be heard."""
        if self.sound:
            self.sound.muted = not self.sound.muted
        self.show_volume()

    def action_volume(self, steps: int) -> None:
        """Make the sound louder, or quieter for negative `steps`."""
        if self.sound:
            self.sound.volume += steps * VOLUME_STEP
            self.sound.muted = False
        self.show_volume()

    def show_volume(self) -> None:
        """Show the volume for a moment, or why there is none."""
        if self.sound is None:
            text = "no sound: the player was started without it (--no-sound, or sound: false)."
        elif self.sound.problem:
            text = f"no sound: {self.sound.problem}"
        else:
            text = "muted" if self.sound.muted else f"volume {self.sound.volume:.0f} %"
        self.presenter.note(text, SHOWN, topic="volume")
