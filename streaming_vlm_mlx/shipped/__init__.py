"""What comes with the package: a small checkpoint for simulated matches, and a match that it never saw."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "matches"
SAMPLE = Path(__file__).parent / "sample" / "match.mp4"
_NOTICE = (
    "this checkpoint knows simulated matches only, and says of other clips what it would say of those; "
    "for real sport name a real one, such as --ckpt mit-han-lab/StreamingVLM."
)
_LEARNING = "this checkpoint is still learning: it sees who plays where and how they stand, but hardly what happens."


def notice(folder: Path, clip: str) -> str:
    """Return what a viewer of `clip` had better know of the checkpoint in `folder`; nothing where it is another one.

    A simulated match has its truth beside it.
    """
    is_match = Path(clip).with_suffix(".truth.json").is_file()
    return "" if folder != CHECKPOINT else _LEARNING if is_match else _NOTICE
