"""From one clip of a playlist to another."""

from dataclasses import dataclass
from functools import partial
from typing import cast

from textual.message import Message

from streaming_vlm_mlx.background import BackgroundThread
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.session_log import SessionLog
from tui.player.screens.parts import PlayerPart
from tui.player.spec import PlayerSpec


class Switching(PlayerPart):
    """Opens the clips beside this one."""

    @dataclass
    class Opened(Message):
        """Another clip is opened, and is to be played now; `refusals` say why others are not."""

        spec: PlayerSpec
        refusals: tuple[str, ...]

    def __init__(self, spec: PlayerSpec, session: SessionLog) -> None:
        super().__init__(spec, session)
        # How much further the clip is that is being opened, the one that was tried first, and where the viewer wants to
        # go: None where they did not say so, as at a clip's end.
        self._going, self._first, self._aim = 0, 0, cast("int | None", None)
        # Whether this clip was at its end before.
        self._was_ended = False

    def action_go(self, steps: int) -> None:
        """Play the clip `steps` further in the playlist, or before for a negative number.

        While a clip is being opened, go on from there when it is open.
        """
        if refusal := self.refusal_to_go(steps):
            self.note(refusal)
            return
        self._aim = (self._aim or 0) + steps
        if not self._going:
            self._go(steps)

    @property
    def still_to_go(self) -> int:
        """How much further than the clip that was opened the viewer wants to go; past clips that cannot be played."""
        if self._aim is None or min(self._first, self._going) <= self._aim <= max(self._first, self._going):
            return 0
        return self._aim - self._going

    def refusal_to_go(self, steps: int) -> str:
        """Return why there is no clip `steps` further, or before for a negative number; empty where there is one."""
        before, after = self.spec.beside
        if self.spec.other is None:
            return "there is one clip: name several to play one after the other."
        if -before <= steps + (self._aim or 0) <= after:
            return ""
        return "this is the last clip." if steps > 0 else "this is the first clip."

    def go_on(self) -> None:
        """Play the next clip when this one comes to its end."""
        ended = self.controller.ended
        if ended and not self._was_ended and not self._going and not self.spec.loop and not self.refusal_to_go(1):
            self._go(1)
        self._was_ended = ended

    def _go(self, steps: int) -> None:
        self._going = self._first = steps
        self.run_worker(self._find_clip(steps), name="switch")

    async def _find_clip(self, steps: int) -> None:
        """Open the clip `steps` from here on a thread or, where it cannot be played, the one behind it."""
        assert self.spec.other
        refusals: list[str] = []
        worker = BackgroundThread("svm-switch")
        direction = 1 if steps > 0 else -1
        try:
            while True:
                try:
                    spec = await worker.run(partial(self.spec.other, steps))
                    break
                except SvmError as error:
                    refusals.append(str(error))
                    steps += direction
        finally:
            worker.close()
        if spec is not None:
            # No other clip is opened before this one is played.
            self._going = steps
            self.post_message(self.Opened(spec, tuple(refusals)))
            return
        self._going, self._aim = 0, None
        for refusal in refusals:
            self.note(refusal)
