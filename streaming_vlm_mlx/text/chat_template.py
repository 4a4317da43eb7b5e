"""The chat template: Qwen's markup, one user turn and one assistant turn a second.

It follows StreamingVLM (arXiv 2510.09608), whose inference program and training data differ in details that a model may
have learned. `ChatTemplate.style` chooses between them and the turns of other programs; `STYLES` has their rules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from streaming_vlm_mlx.config import Style
from streaming_vlm_mlx.text.tokenizer import SpecialIds, Tokenizer

SYSTEM = "You are a helpful assistant."
INSTRUCT_SYSTEM = (
    "You comment live on a video for someone who watches it. You see its last seconds as short clips, in order; the "
    "last clip is now. Say in one short sentence what has just changed. Do not repeat what you said before. If nothing "
    "has changed, answer with exactly: ..."
)
SAID_BEFORE = "You said in the last seconds:\n"


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
        is_spaced: whether a space follows the times of every second but the first, and a commentary begins after two
            line feeds; else the times end without a space, and one line feed opens a commentary.
        system: the text of the system turn.
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
    is_spaced: bool = False
    system: str = SYSTEM


STYLES: Mapping[Style, StyleRules] = {
    "inference": StyleRules(),
    "training": StyleRules(has_query=False, is_spaced=True),
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
    "instruct": StyleRules(has_previous=False, generation_config=True, one_turn=True, system=INSTRUCT_SYSTEM),
}


def user_text(start: float, end: float, question: str = "", *, first: bool) -> str:
    """Return the text before a second's video in training data, such as ``Time=3.0-4.0s Who has the ball?``.

    Checkpoints rely on an odd detail of the published data: every second but the first has a space after its times, and
    there is none between the first second's times and a question.

    Args:
        start: start of the second, written with one decimal.
        end: end of the second.
        question: the viewer's question in this second, or empty.
        first: whether this is the first second of the conversation.
    """
    return f"Time={start:.1f}-{end:.1f}s{'' if first else ' '}{question}"


def assistant_text(words: Iterable[str], answer: str = "") -> str:
    """Return an assistant turn of training data: the answer to a question, a line feed and the commentary.

    The commentary is `words`, each with a space before it, and a closing `` ...``; without words the second is silent.
    """
    return answer + "\n" + " ".join(("", *words, "..."))


@dataclass(frozen=True)
class ChatTemplate:
    """The fixed ids of a sequence, and the text between them.

    Each text between the fixed ids is encoded by itself; no merge crosses a border.

    Attributes:
        system: ids of the system turn's text.
        style: ``inference`` writes like the published inference program: the viewer's query after the first second's
            video, one line feed to open a commentary. ``training`` writes like its training data: no query, a space
            after the times of every second but the first, two line feeds to open a commentary, one before an answer.
            ``livecc`` writes like ``inference``, but without a turn of role ``previous text``, and writes a viewer's
            question after the video too. ``instruct`` writes one user turn, anew in every second: what the model said,
            the video that is kept, and the query or a question.
        special: ids of markup, roles and fixed words.
        has_stamps: whether each temporal step of a video is a span of its own behind its time, as for Qwen3-VL.
        eos_ids: ids that end a commentary instead of the style's own; None for those.
    """

    system: tuple[int, ...]
    style: Style = "inference"
    special: SpecialIds = field(default_factory=SpecialIds)
    has_stamps: bool = False
    eos_ids: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        style: Style = "inference",
        system: str = "",
        has_stamps: bool = False,
        eos_ids: tuple[int, ...] | None = None,
    ) -> Self:
        """Return the template in the ids of `tokenizer`; an empty `system` stands for the style's own text."""
        return cls(
            tuple(tokenizer.encode(system or STYLES[style].system)), style, tokenizer.special, has_stamps, eos_ids
        )

    @property
    def rules(self) -> StyleRules:
        """How turns differ from those of the published program."""
        return STYLES[self.style]

    @property
    def system_turn(self) -> tuple[int, ...]:
        """The system turn."""
        s = self.special
        return (s.im_start, s.system, s.newline, *self.system, s.im_end, s.newline)

    @property
    def previous_open(self) -> tuple[int, ...]:
        """The opening of the turn of role ``previous text``."""
        return (self.special.im_start, *self.special.previous, self.special.newline)

    @property
    def user_open(self) -> tuple[int, ...]:
        """The opening of a second's user turn."""
        return (self.special.im_start, self.special.user, self.special.newline)

    @property
    def turn_close(self) -> tuple[int, ...]:
        """The closing of any turn."""
        return (self.special.im_end, self.special.newline)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end a commentary."""
        return self.eos_ids or (self.special.im_end, self.special.endoftext)

    @property
    def silence_id(self) -> int:
        """The id of `` ...``."""
        return self.special.silence

    @property
    def has_query(self) -> bool:
        """Whether the viewer's query is written, after the first second's video or in every second."""
        return self.rules.has_query

    @property
    def has_previous(self) -> bool:
        """Whether a turn of role ``previous text`` follows the system turn; without it, old commentary is dropped."""
        return self.rules.has_previous

    def assistant_open(self, answers: bool = False) -> tuple[int, ...]:
        """Return the opening of a second's assistant turn; with `answers`, of one that begins with an answer."""
        s = self.special
        return (s.im_start, s.assistant, s.newlines if self.rules.is_spaced and not answers else s.newline)

    def time(self, start: float, end: float, question: str = "", first: bool = False) -> str:
        """Return the text before a second's video; the arguments are those of `user_text`.

        Without a question, only a style that is spaced has a space after the times.
        """
        text = user_text(start, end, question.strip(), first=first)
        return text if self.rules.is_spaced or question.strip() else text.rstrip()

    def request(self, query: str, question: str) -> str:
        """Return the text after the video of the one user turn: the viewer's question, else the standing query."""
        if question.strip():
            return f"The viewer asks: {question.strip()}\nAnswer in one short sentence."
        return f"{query.strip()}\nWhat has just changed? One short sentence, or ... if nothing has."

    def stamp(self, seconds: float) -> str:
        """Return the text before a temporal step that is shown at `seconds` from the clip's beginning."""
        return f"<{seconds:.1f} seconds>"

    def video(self, tokens: int) -> tuple[int, ...]:
        """Return a video span of `tokens` merged patches."""
        s = self.special
        return (s.vision_start, *[s.video_pad] * tokens, s.vision_end)


def template_ids(tokenizer: Tokenizer) -> list[int]:
    """Return every id that the template can write, ascending; a model needs an embedding row for each."""
    template = ChatTemplate.of(tokenizer)
    written = [
        *template.special.all(),
        *template.system,
        *tokenizer.encode(template.time(0.0, 123456789.0, "?")),
        *tokenizer.encode(" "),
    ]
    return sorted(set(written))
