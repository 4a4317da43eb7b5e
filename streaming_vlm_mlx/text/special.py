"""The ids that the stream's markup stands on."""

from collections.abc import Callable
from dataclasses import dataclass

from streaming_vlm_mlx.errors import SvmError

_SPELLING = {
    "endoftext": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "vision_pad": "<|vision_pad|>",
    "image_pad": "<|image_pad|>",
    "video_pad": "<|video_pad|>",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "previous": "previous text",
    "newline": "\n",
    "newlines": "\n\n",
    "time": "Time",
    "silence": " ...",
}


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Qwen2.5-VL's ids of the markup, the roles and the few words that the stream looks for.

    Attributes:
        endoftext: padding.
        im_start: opens a turn.
        im_end: closes a turn; generation stops at it.
        vision_start: opens an image or a video.
        vision_end: closes it.
        vision_pad: not used by the stream.
        image_pad: one for each merged patch of an image.
        video_pad: one for each merged patch of a video.
        system: the role that opens the sequence.
        user: the role of a second's time and video.
        assistant: the role of its commentary.
        previous: the two tokens of the role ``previous text``, the long memory.
        newline: one line break.
        newlines: two line breaks, which are one token.
        time: the word that a user turn begins with.
        silence: the `` ...`` that closes a commentary.
    """

    endoftext: int = 151643
    im_start: int = 151644
    im_end: int = 151645
    vision_start: int = 151652
    vision_end: int = 151653
    vision_pad: int = 151654
    image_pad: int = 151655
    video_pad: int = 151656
    system: int = 8948
    user: int = 872
    assistant: int = 77091
    previous: tuple[int, int] = (19702, 1467)
    newline: int = 198
    newlines: int = 271
    time: int = 1462
    silence: int = 2503

    def all(self) -> tuple[int, ...]:
        """Return every id, each once."""
        values = (getattr(self, name) for name in _SPELLING)
        return tuple(i for value in values for i in (value if isinstance(value, tuple) else (value,)))

    def check(self, encode_markup: Callable[[str], list[int]], name: str) -> None:
        """Refuse a tokenizer that gives other ids; `name` is what the message calls it.

        Raises:
            SvmError: names the first id that is off.
        """
        for field, text in _SPELLING.items():
            expected = getattr(self, field)
            expected = list(expected) if isinstance(expected, tuple) else [expected]
            found = encode_markup(text)
            if found != expected:
                raise SvmError(
                    f"{name}: {text!r} is {_ids(found)}, in Qwen2.5-VL it is {_ids(expected)}; "
                    "use the tokenizer.json of a Qwen2.5-VL checkpoint."
                )


def _ids(ids: list[int]) -> str:
    return f"id {ids[0]}" if len(ids) == 1 else f"ids {ids}"
