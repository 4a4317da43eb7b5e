"""Turns generated ids into text piece by piece: streaming decoding, the scratchpad line, the cleaned commentary."""

import re

from streaming_vlm_mlx.text.tokenizer import Tokenizer


class StreamDecoder:
    """Decodes ids one by one; text is held back until all bytes of a character are there.

    The joined pieces equal `Tokenizer.decode` of all ids at once.
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
        """Add the next id and return the text that is now complete, often empty."""
        self._ids.append(token)
        piece = self._stream.step(self._tokenizer.backend, token) or ""
        self._shown += len(piece)
        return piece

    def flush(self) -> str:
        """Return the text held back, with broken characters as U+FFFD, and reset."""
        rest = self._tokenizer.decode(self._ids)[self._shown :]
        self._restart()
        return rest


# The most tokens of a scratchpad line; a longer line is cut.
SCRATCH_TOKENS = 48


class Scratchpad:
    """The line that the model writes to itself before its commentary, up to the first line feed.

    Attributes:
        ids: the tokens so far, the line feed's included.
        text: their text.
        is_full: whether the line is complete or has its largest length.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.is_full = False
        self._decoder = StreamDecoder(tokenizer)

    def push(self, token: int) -> None:
        """Add the next token."""
        self.ids.append(token)
        piece = self._decoder.push(token)
        self.text += piece
        self.is_full = "\n" in piece or len(self.ids) >= SCRATCH_TOKENS


_MARKUP = re.compile(r"<\|[a-z_]+\|>")
# An end of the text that can still become markup, or the closing ellipsis.
_MARKUP_BEGUN = re.compile(r"<(?:\|[a-z_]*\|?)?\Z")
_UNDECIDED = re.compile(r"(?:\s+\.\.\.)*(?:\s+\.{0,3})?$")
_CLOSING = re.compile(r"(?:\s+\.\.\.)*\s*$")
_LINE_BREAK = re.compile(r"[^\S\n]*\n\s*")


class CommentaryCleaner:
    """Cleans generated text for the viewer, piece by piece.

    It removes markup, white space at both ends, the closing `` ...`` and the spaces around a line break. Text that can
    still become one of these is held back.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        # With the space, a "..." at the very beginning counts as closing; the space itself is never returned.
        self._markup, self._held, self._begun = "", " ", False

    def push(self, piece: str) -> str:
        """Add the next piece of text and return the text that can be shown now, often empty."""
        text = self._markup + piece
        end = _tail_start(_MARKUP_BEGUN, text)
        self._held, self._markup = self._held + _MARKUP.sub("", text[:end]), text[end:]
        return self._show(_tail_start(_UNDECIDED, self._held))

    def flush(self) -> str:
        """Return the held-back text that belongs to the commentary, and reset."""
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
    """Return the commentary in the generated `text` of a second; empty if the model was silent."""
    cleaner = CommentaryCleaner()
    return cleaner.push(text) + cleaner.flush()
