"""The shipped files: a small checkpoint for simulated matches, and a match that it was not trained on."""

from collections.abc import Iterable
from pathlib import Path

CHECKPOINT = Path(__file__).parent / "matches"
# As a viewer reads it.
NAME = "demo tennis model"
SAMPLE = Path(__file__).parent / "sample" / "match.mp4"
# Gibibytes of a machine below which a choice is made, and the choice: a checkpoint, its bits, its download, its need.
# Metal lends a process about two thirds of the memory; docs/models.md has the sizes.
_CHOICES = (
    (12, "Qwen/Qwen2.5-VL-3B-Instruct", 4, "7.5 GB", "2.9 GiB"),
    (24, "mit-han-lab/StreamingVLM", 4, "17 GB", "5.7 GiB"),
    (48, "mit-han-lab/StreamingVLM", 8, "17 GB", "11.0 GiB"),
)
_LARGEST = ("mit-han-lab/StreamingVLM", "17 GB", "16.6 GiB")


def notice(folder: Path, clips: Iterable[str], memory: int) -> str:
    """Return a hint for a viewer of `clips` if `folder` is the shipped checkpoint; empty for any other checkpoint.

    The hint names a checkpoint that fits a machine of `memory` bytes. It is empty for simulated matches too, which have
    their truth beside them.
    """
    if folder != CHECKPOINT or all(Path(clip).with_suffix(".truth.json").is_file() for clip in clips):
        return ""
    return f"this checkpoint knows simulated matches only; for real sport, {recommendation(memory)}."


def recommendation(memory: int, limit: int | None = None) -> str:
    """Return how to get a checkpoint for real sport that fits a machine.

    Args:
        memory: its bytes, which are a Mac's.
        limit: bytes that a model may use on another machine; None for a Mac.
    """
    if limit is not None:
        memory = limit * 3 // 2
    for below, name, bits, download, needs in _CHOICES:
        if memory < below << 30:
            return (
                f"run 'svm-tui convert-ckpt {name} small --bits {bits}' once (downloads {download}), "
                f"then add --ckpt small (needs {needs})"
            )
    name, download, needs = _LARGEST
    return f"add --ckpt {name} (downloads {download}, needs {needs})"
