"""What a model answers to itself in a second, before it speaks: up to the first line feed."""

from streaming_vlm_mlx.text.tokenizer import StreamDecoder, Tokenizer

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
