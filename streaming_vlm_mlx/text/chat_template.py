"""How seconds are written: Qwen's chat markup, one user and one assistant turn a second.

The order of things is that of StreamingVLM (arXiv 2510.09608), whose inference and training programs differ in details
that a model may have learned; `ChatTemplate.style` chooses.
"""

from dataclasses import dataclass, field
from typing import Self

from streaming_vlm_mlx.config import Style
from streaming_vlm_mlx.text.tokenizer import SpecialIds, Tokenizer

SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class ChatTemplate:
    """The fixed ids of a sequence, and what is written between them.

    Text between the pieces is encoded by itself; no merge reaches across their borders.

    Attributes:
        system: ids of the system turn's text.
        style: ``inference`` as the published inference program writes: the viewer's query behind the first second's
            video, one line break to open a commentary. ``training`` as its training data: no query, a space behind
            the time of every second but the first, two line breaks to open a commentary unless a question is answered.
        special: ids of markup, roles and fixed words.
    """

    system: tuple[int, ...]
    style: Style = "inference"
    special: SpecialIds = field(default_factory=SpecialIds)

    @classmethod
    def of(cls, tokenizer: Tokenizer, style: Style = "inference", system: str = SYSTEM) -> Self:
        """Return the layout in the ids of `tokenizer`."""
        return cls(tuple(tokenizer.encode(system)), style, tokenizer.special)

    @property
    def head_open(self) -> tuple[int, ...]:
        """The system turn, and the opening of the role ``previous text``."""
        s = self.special
        system = (s.im_start, s.system, s.newline, *self.system, s.im_end, s.newline)
        return (*system, s.im_start, *s.previous, s.newline)

    @property
    def head_close(self) -> tuple[int, ...]:
        """The closing of the previous text."""
        return self.turn_close

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
        return (self.special.im_end, self.special.endoftext)

    @property
    def silence_id(self) -> int:
        """The id of `` ...``."""
        return self.special.silence

    @property
    def has_query(self) -> bool:
        """Whether the viewer's query stands behind the first second's video."""
        return self.style == "inference"

    def assistant_open(self, answers: bool = False) -> tuple[int, ...]:
        """Return the opening of a second's assistant turn; `answers` when it begins with an answer to a question."""
        s = self.special
        spaced = self.style == "training" and not answers
        return (s.im_start, s.assistant, s.newlines if spaced else s.newline)

    def time(self, start: float, end: float, question: str = "", first: bool = False) -> str:
        """Return the text before a second's video, such as ``Time=3.0-4.0s`` or ``Time=3.0-4.0s Who has the ball?``.

        Args:
            start: seconds, written with one decimal.
            end: seconds.
            question: what the viewer asks in this second, if anything.
            first: whether this is the stream's first second, in which training put no space before a question.
        """
        time, question = f"Time={start:.1f}-{end:.1f}s", question.strip()
        gap = "" if first else " "
        return time + gap + question if question or self.style == "training" else time

    def video(self, tokens: int) -> tuple[int, ...]:
        """Return a video span of `tokens` merged patches."""
        s = self.special
        return (s.vision_start, *[s.video_pad] * tokens, s.vision_end)

    def commentary(self, words: str, answer: str = "") -> str:
        """Return what stands behind `assistant_open` in training data: `words` of the second, empty for silence.

        An `answer` to the second's question comes first.
        """
        spoken = f" {words.strip()} ..." if words.strip() else " ..."
        return f"{answer}\n{spoken}" if answer else spoken


def template_ids(tokenizer: Tokenizer) -> list[int]:
    """Return every id that the layout itself can write, ascending: without a row for them no model can run."""
    template = ChatTemplate.of(tokenizer)
    written = [
        *template.special.all(),
        *template.system,
        *tokenizer.encode(template.time(0.0, 123456789.0, "?")),
        *tokenizer.encode(" "),
    ]
    return sorted(set(written))
