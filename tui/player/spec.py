"""What a session of the player is about, before it starts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tui.player.clip import FrameGrabber, Seconds
from tui.player.pace import Pace
from tui.player.transcript import Timed

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.sessions.record import SessionRecord
    from tui.player.controller import Commentator

Note = Callable[[str], None]


@dataclass(frozen=True)
class PlayerSpec:
    """A clip, who comments on it, and how it is shown.

    Attributes:
        clip: its name, as it is shown.
        model: the commentator's name, as it is shown.
        size: width and height of the clip in pixels.
        seconds: the clip for the model.
        open_grabber: opens the clip for the eye; None where there are no pictures.
        make: returns the commentator, and tells what the viewer had better know; may block.
        config: the model's settings; None where they cannot be changed.
        read_truth: returns the words of the true transcript, and tells what is odd about it; may block.
        record: the session's record, empty.
        base_paths: where its files may lie, the best place first.
        endings: of these files; none for a session that is not to be kept.
        pace: how seconds are chosen.
        start: second to begin at.
        with_picture: whether the picture is shown at first.
        loop: begin again at the clip's end.
    """

    clip: str
    model: str
    size: tuple[int, int]
    seconds: Seconds
    open_grabber: Callable[[], FrameGrabber] | None
    make: "Callable[[Note], Commentator]"
    config: "StreamConfig | None"
    read_truth: Callable[[Note], tuple[Timed, ...]] | None
    record: "SessionRecord"
    base_paths: tuple[Path, ...]
    endings: tuple[str, ...]
    pace: Pace = "live"
    start: float = 0.0
    with_picture: bool = True
    loop: bool = False
