"""What the styles of a stream do differently in their turns, as a table."""

from collections.abc import Mapping
from dataclasses import dataclass

from streaming_vlm_mlx.config import Style


@dataclass(frozen=True)
class StyleRules:
    """How the turns of one style differ from those of the published StreamingVLM program.

    Attributes:
        has_previous: whether a turn of role ``previous text`` follows the system turn; without it, old commentary is
            dropped.
        has_query: whether the query is written after the video, in the first turn and where it changes.
        repeats_query: whether the query is written again once its turn is dropped.
        asks_after_video: whether a viewer's question stands after the video, in place of the query; else it stands
            before the video, after the times.
        first_seconds: seconds of video in the first turn; each later turn has one.
        later_grids: whether the video of turns after the first has M-RoPE's rows and columns; else it counts up like
            text.
        keeps_last: whether the last token of a reply that the limit cut short is kept.
        generation_config: whether the stop tokens in a folder's ``generation_config.json`` replace the style's.
        one_turn: whether all that is kept is written as one user turn, anew in every second.
        takes_ending_frames: whether a sampling time takes the first frame that ends at or after it; else the first
            that begins then.
    """

    has_previous: bool = True
    has_query: bool = True
    repeats_query: bool = False
    asks_after_video: bool = False
    first_seconds: int = 1
    later_grids: bool = True
    keeps_last: bool = True
    generation_config: bool = False
    takes_ending_frames: bool = False
    one_turn: bool = False


STYLES: Mapping[Style, StyleRules] = {
    "inference": StyleRules(),
    "training": StyleRules(has_query=False),
    # LiveCCDemoInfer.live_cc of showlab/livecc (arXiv 2504.16030).
    "livecc": StyleRules(
        has_previous=False,
        repeats_query=True,
        asks_after_video=True,
        first_seconds=3,
        later_grids=False,
        keeps_last=False,
        generation_config=True,
        takes_ending_frames=True,
    ),
    # For models that were never trained to stream: SimpleStream (arXiv 2604.02317) sees the last frames alone.
    "instruct": StyleRules(has_previous=False, generation_config=True, one_turn=True),
}
