"""An export that is interrupted, also while it speaks and draws."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import FORMATS
from tests.audio.voices import voice_command
from tests.crash.interrupting import Blow, Command, Outcome
from tests.crash.kinds import Clean, Kind, check_end, check_whole, files_in

# Seconds after which a program that speaks is taken to be left behind.
LINGERS = 30.0


class Export(Kind):
    """``export`` leaves the old file or the new one, and no program that speaks."""

    name = "export"
    variants = (".mp4", "spoken", ".vtt", ".json")
    short = 4

    def lay_out(self, folder: Path, variant: str) -> Command:
        """Put a session there, its clip, and what was exported earlier."""
        shutil.copy(self.assets.long_clip, folder / "clip.mp4")
        shutil.copy(self.assets.session, folder / "session.json")
        (folder / self._name(variant)).write_bytes(self._old(variant))
        return self.command(folder, variant)

    def command(self, folder: Path, variant: str) -> Command:
        """Return the command."""
        spoken = ("--voice", "--voice-command", voice_command(folder), "--burn") if variant == "spoken" else ()
        words = ("export", "session.json", "--out", self._name(variant), *spoken)
        return Command(words, folder, self.environ(folder))

    def check(self, folder: Path, outcome: Outcome, blow: Blow, clean: Clean, variant: str) -> None:
        """Check the file."""
        check_end(outcome, blow, clean)
        name = self._name(variant)
        check_whole(folder / name, self._old(variant), clean.files[name])
        if outcome.ended.status != -9:
            assert sorted(files_in(folder)) == sorted(clean.files)
        if variant == "spoken":
            check_alone(folder / "voice.py")

    def _name(self, variant: str) -> str:
        return "game.mp4" if variant == "spoken" else f"game{variant}"

    def _old(self, variant: str) -> bytes:
        if variant in (".mp4", "spoken"):
            return self.assets.export.read_bytes()
        return FORMATS[variant](SessionRecord(clip="clip.mp4"), False).encode()


def check_alone(program: Path) -> None:
    """Check that nothing runs `program` any more, where the system tells."""
    end = time.monotonic() + LINGERS
    while running := [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(program).encode() in _read(path)]:
        assert time.monotonic() < end, f"{running[0].parent.name} still speaks"


def _read(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""
