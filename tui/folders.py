"""Where this program keeps things."""

from collections.abc import Mapping
from pathlib import Path

# Below the working folder; a checkpoint's short name is looked up here.
CHECKPOINTS = Path("checkpoints")


def state_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder for settings of the player and journals of sessions, by the XDG base directory rules."""
    base = environ.get("XDG_STATE_HOME") or ""
    return (Path(base) if base.startswith("/") else home / ".local" / "state") / "svm-tui"
