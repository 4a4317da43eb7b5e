"""The specification of a player session."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui.player.clip import FrameGrabber, Seconds
from tui.player.feed import LiveFeed, Recording
from tui.player.graphics.display import Display
from tui.player.keymap import Keymap
from tui.player.pace import Pace
from tui.player.transcript import Timed
from tui.player.voice import VoiceSpec

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.sessions.record import SessionRecord
    from tui.player.controller import Commentator
    from tui.player.sound import SoundSpec

Note = Callable[[str], None]


@dataclass(frozen=True)
class PlayerSpec:
    """A clip, its commentator, and how it is shown.

    Attributes:
        clip: name of the clip, as shown.
        model: name of the model, as shown.
        size: (width, height) of the clip in pixels.
        seconds: the clip for the model.
        open_grabber: opens the clip for the screen's pictures; None where there are none.
        make: returns the commentator, and passes notes for the viewer to its argument; may block.
        config: the stream's settings; None if they cannot be changed.
        read_truth: returns the words of the true transcript, and passes warnings to its argument; may block.
        record: the session's record, empty.
        base_paths: where its files and saved pictures may be written, without suffixes, the best place first.
        endings: suffixes of these files; none for a session that is not kept.
        pace: how seconds are chosen.
        start: position to begin at, in seconds.
        with_picture: whether to start with the picture shown.
        display: how it is drawn.
        typed: characters that were typed before the player could read them.
        loop: start again at the clip's end.
        feed: the connection of a live feed; None for a clip.
        recording: what keeps the feed; None for nothing.
        describe_machine: returns what the model runs on, once it is loaded; None where the record says it.
        other: returns the session of the clip that many places further in the playlist, None at its ends; may block and
            raise `SvmError`; None where there is one clip.
        beside: how many clips of the playlist come before this one, and how many after.
        left_at: where the viewer left the clip before, in seconds; None where it is not offered.
        remember: keeps the position in seconds at the end; None where it is not kept.
        keymap: keys that the viewer gave to actions, by the ids of their bindings.
        per_second: show a line, and write a subtitle, for each second instead of for each sentence.
        questions: what the model was taught to answer; empty where that is not known.
        sound: the clip's sound; None for none.
        voice: how the commentary is spoken.
        preset: a sentence on how the model runs; empty for one that was trained to stream.
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
    display: Display = field(default_factory=Display)
    typed: str = ""
    loop: bool = False
    feed: LiveFeed | None = None
    recording: Recording | None = None
    questions: tuple[str, ...] = ()
    preset: str = ""
    describe_machine: Callable[[], Mapping[str, Any]] | None = None
    per_second: bool = False
    other: "Callable[[int], PlayerSpec | None] | None" = None
    beside: tuple[int, int] = (0, 0)
    sound: "SoundSpec | None" = None
    voice: VoiceSpec = field(default_factory=VoiceSpec)
    left_at: float | None = None
    remember: Callable[[float], None] | None = None
    keymap: Keymap = field(default_factory=dict)

    @property
    def is_replay(self) -> bool:
        """Whether the commentary is recorded: there is no model to ask or to change, and nothing to save."""
        return self.config is None


def uses_query(config: "StreamConfig") -> bool:
    """Return whether the chat template of `config` has a place for its query."""
    from streaming_vlm_mlx.text.chat_template import ChatTemplate

    return ChatTemplate((), config.style).has_query
