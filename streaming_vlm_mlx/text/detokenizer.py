"""What a model answers to itself in a second, before it speaks: up to the first line feed."""

import re
from typing import TYPE_CHECKING

from streaming_vlm_mlx.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    pass


class StreamDecoder:
    """Text from ids as they come, held back while a character's bytes are not all there.

    The joined pieces equal what `Tokenizer.decode` makes of all ids at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._restart()

    def _restart(self) -> None:
        from tokenizers.decoders import DecodeStream

        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Take the next id; return the text that is now complete, often empty."""
        self._ids.append(token)
        piece = self._stream.step(self._tokenizer.backend, token) or ""
        self._shown += len(piece)
        return piece

    def flush(self) -> str:
        """Return what was held back, broken characters as U+FFFD, and start anew."""
        rest = self._tokenizer.decode(self._ids)[self._shown :]
        self._restart()
        return rest


# A line that is longer is cut.
SCRATCH_TOKENS = 48


class Scratchpad:
    """Takes tokens until they make up a line.

    Attributes:
        ids: the tokens so far, that of the line feed included.
        text: what they spell.
        is_full: the line is whole, or as long as it may be.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.is_full = False
        self._decoder = StreamDecoder(tokenizer)

    def push(self, token: int) -> None:
        """Take the next token."""
        self.ids.append(token)
        piece = self._decoder.push(token)
        self.text += piece
        self.is_full = "\n" in piece or len(self.ids) >= SCRATCH_TOKENS


_MARKUP = re.compile(r"<\|[a-z_]+\|>")
# What a text may end on and still turn out to be markup, or the closing ellipsis.
_MARKUP_BEGUN = re.compile(r"<(?:\|[a-z_]*\|?)?\Z")
_UNDECIDED = re.compile(r"(?:\s+\.\.\.)*(?:\s+\.{0,3})?$")
_CLOSING = re.compile(r"(?:\s+\.\.\.)*\s*$")
_LINE_BREAK = re.compile(r"[^\S\n]*\n\s*")


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
