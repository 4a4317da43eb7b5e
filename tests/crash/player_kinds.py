"""The player in a terminal of its own: interrupted while it plays, while it saves, and when its terminal is closed."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from streaming_vlm_mlx.sessions.journal import load_session
from tests.audio.voices import voice_command
from tests.crash.assets import SECONDS
from tests.crash.export_kind import check_alone
from tests.crash.interrupting import Blow, Command, Outcome
from tests.crash.kinds import STATUSES, Clean, Kind, allowed_statuses, files_in, journals

# What a terminal shows last: the screen before the player's, and the cursor.
LAST_SCREEN, CURSOR = b"\x1b[?1049l", b"\x1b[?25h"
# Processor seconds that a player may take after its terminal was closed.
MOST_CPU = 2.0


class Play(Kind):
    """The player keeps every second that was on the screen, in its files or a journal, and leaves no other program."""

    name = "play"
    blows: tuple[Blow, ...] = ("SIGKILL", "SIGTERM", "SIGINT", "ctrl-c")
    variants = ("", "--voice", "--no-picture")
    short = 2
    keys: ClassVar[Mapping[int, bytes]] = {SECONDS - 1: b"q"}

    def lay_out(self, folder: Path, variant: str) -> Command:
        """Put the clip there."""
        shutil.copy(self.assets.clip, folder / "clip.mp4")
        return self.command(folder, variant)

    def command(self, folder: Path, variant: str) -> Command:
        """Return the command."""
        options = ["--ckpt", str(self.assets.ckpt), "--pace", "every", "--out", "game.json", *variant.split()]
        if variant == "--voice":
            # Not among the files that are counted.
            (folder / "state").mkdir(exist_ok=True)
            options += ["--voice-command", voice_command(folder / "state")]
        environ = {**self.environ(folder), "COLORTERM": "truecolor"}
        return Command(("play", "clip.mp4", *options), folder, environ, terminal=True, keys=self.keys)

    def check(self, folder: Path, outcome: Outcome, blow: Blow, clean: Clean, variant: str) -> None:
        """Check the session, and that the terminal is as it was."""
        self.check_terminal(outcome, blow)
        status = outcome.ended.status
        assert status in allowed_statuses(outcome, blow), f"status {status}: {outcome.err[-500:]!r}"
        saved = [path for path in (folder / "game.json", folder / "game.vtt") if path.exists()]
        sessions = [load_session(path) for path in (*journals(folder), *(p for p in saved if p.suffix == ".json"))]
        heard = {second.index for session in sessions for second in session.seconds}
        assert set(outcome.shown) <= heard, f"shown {outcome.shown}, kept {sorted(heard)}"
        if status != STATUSES["SIGKILL"] and outcome.shown:
            assert len(saved) == 2
            assert not journals(folder)
            assert sorted(files_in(folder)) == ["clip.mp4", "game.json", "game.vtt"]
        if (folder / "game.vtt") in saved:
            assert (folder / "game.vtt").read_text().startswith("WEBVTT\n")
        check_alone(folder / "state" / "voice.py")

    def check_terminal(self, outcome: Outcome, blow: Blow) -> None:
        """Check that the screen is the one before, and that lines can be typed."""
        if outcome.ended.status == STATUSES["SIGKILL"]:
            return
        assert b"Traceback" not in outcome.err
        assert outcome.modes
        if LAST_SCREEN.replace(b"l", b"h") in outcome.err:
            assert LAST_SCREEN in outcome.err
            assert CURSOR in outcome.err

    def resume(self, folder: Path, variant: str) -> Sequence[Command]:
        """Return the command that exports the journal, if there is one."""
        return [
            Command(("export", str(path), "--out", "again.vtt"), folder, self.environ(folder))
            for path in journals(folder)
        ]

    def check_resumed(self, folder: Path, outcome: Outcome, clean: Clean, variant: str) -> None:
        """Check the export."""
        assert (folder / "again.vtt").read_text().startswith("WEBVTT\n")


class Save(Play):
    """Saving on a key leaves whole files, whenever the player is interrupted."""

    name = "save"
    variants = ("--no-picture",)
    short = 1
    keys: ClassVar[Mapping[int, bytes]] = {**dict.fromkeys(range(SECONDS), b"e"), SECONDS - 1: b"eq"}


class Hangup(Play):
    """A player whose terminal is closed has saved and is gone soon, whatever hangs."""

    name = "hangup"
    blows: tuple[Blow, ...] = ("hangup",)
    variants = ("controlling", "controlling", "other")
    short = 1

    def command(self, folder: Path, variant: str) -> Command:
        """Return the command; a terminal that is not the controlling one sends no signal when it is closed."""
        found = super().command(folder, "")
        return Command(found.words, folder, found.environ, True, variant == "controlling", found.keys)

    def check_terminal(self, outcome: Outcome, blow: Blow) -> None:
        """Check that the player did not spin; there is no terminal."""
        assert outcome.cpu <= MOST_CPU, f"{outcome.cpu:.1f} s of processor time after the terminal was closed"
