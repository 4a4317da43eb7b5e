"""How seconds are written: Qwen's chat markup, one user and one assistant turn a second.

The order of things is that of StreamingVLM (arXiv 2510.09608), whose inference and training programs differ in details
that a model may have learned; `Layout.style` chooses.
"""

import re
from dataclasses import dataclass, field
from typing import Self

from streaming_vlm_mlx.config import Style
from streaming_vlm_mlx.text.special import SpecialIds
from streaming_vlm_mlx.text.tokenizer import Tokenizer

SYSTEM = "You are a helpful assistant."

_MARKUP = re.compile(r"<\|[a-z_]+\|>")
# What a text may end on and still turn out to be markup, or the closing ellipsis.
_MARKUP_BEGUN = re.compile(r"<(?:\|[a-z_]*\|?)?\Z")
_UNDECIDED = re.compile(r"(?:\s+\.\.\.)*(?:\s+\.{0,3})?$")
_CLOSING = re.compile(r"(?:\s+\.\.\.)*\s*$")
_LINE_BREAK = re.compile(r"[^\S\n]*\n\s*")


@dataclass(frozen=True)
class Layout:
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


class CommentaryCleaner:
    """Turns generated text into what a viewer reads, piece by piece.

    Markup goes, and so do white space at both ends and the closing `` ...``; a line break inside swallows the spaces
    around it. What may still turn out to be one of these is held back.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        # The space lets a "..." at the very beginning count as closing; it never shows.
        self._markup, self._held, self._begun = "", " ", False

    def push(self, piece: str) -> str:
        """Take the next piece of text; return what can be shown now, often empty."""
        text = self._markup + piece
        end = _tail_start(_MARKUP_BEGUN, text)
        self._held, self._markup = self._held + _MARKUP.sub("", text[:end]), text[end:]
        return self._show(_tail_start(_UNDECIDED, self._held))

    def flush(self) -> str:
        """Return what was held back and belongs to the text, and start anew."""
        self._held += self._markup
        shown = self._show(_tail_start(_CLOSING, self._held))
        self._restart()
        return shown

    def _show(self, end: int) -> str:
        shown, self._held = _LINE_BREAK.sub("\n", self._held[:end]), self._held[end:]
        if not self._begun:
            shown = shown.lstrip()
            self._begun = bool(shown)
        return shown


def _tail_start(tail: re.Pattern[str], text: str) -> int:
    found = tail.search(text)
    return found.start() if found else len(text)


def clean_commentary(text: str) -> str:
    """Return what a viewer reads of a second's generated `text`; empty when the model kept silent."""
    cleaner = CommentaryCleaner()
    return cleaner.push(text) + cleaner.flush()


def layout_ids(tokenizer: Tokenizer) -> list[int]:
    """Return every id that the layout itself can write, ascending: without a row for them no model can run."""
    layout = Layout.of(tokenizer)
    written = [
        *layout.special.all(),
        *layout.system,
        *tokenizer.encode(layout.time(0.0, 123456789.0, "?")),
        *tokenizer.encode(" "),
    ]
    return sorted(set(written))
