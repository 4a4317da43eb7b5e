"""Where this program keeps things."""

from collections.abc import Mapping
from pathlib import Path

# Below the working folder; a checkpoint's short name is looked up here.
CHECKPOINTS = Path("checkpoints")


def state_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder for settings of the player and journals of sessions, by the XDG base directory rules."""
    return _base(environ, "XDG_STATE_HOME", home / ".local" / "state") / "svm-tui"


def cache_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder for what can be made again, by the XDG base directory rules."""
    return _base(environ, "XDG_CACHE_HOME", home / ".cache") / "svm-tui"


def _base(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    """Return the folder that `variable` names; the rules have a relative one passed over."""
    named = environ.get(variable) or ""
    return Path(named) if named.startswith("/") else default
