"""What comes with the package: a small checkpoint for simulated matches, and a match that it never saw."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "matches"
SAMPLE = Path(__file__).parent / "sample" / "match.mp4"
_NOTICE = (
    "this checkpoint knows simulated matches only, and says of other clips what it would say of those; "
    "for real sport name a real one, such as --ckpt mit-han-lab/StreamingVLM."
)


def notice(folder: Path, clip: str) -> str:
    """Return what a viewer of `clip` had better know of the checkpoint in `folder`; nothing of another checkpoint.

    Nor of a simulated match, which has its truth beside it.
    """
    return "" if folder != CHECKPOINT or Path(clip).with_suffix(".truth.json").is_file() else _NOTICE
