"""The Qwen2.5-VL tokenizer, and the ids of the markup that a stream needs."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json, read_file

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
    """Qwen2.5-VL's ids of the markup, the roles and the few words that a stream uses.

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
        """Check that a tokenizer has these ids; `name` names it in the message.

        Raises:
            SvmError: names the first id that differs.
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


SHIPPED = Path(__file__).with_name("qwen")
TOKENIZER = "tokenizer.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Tokenizer:
    """Encodes text to ids and decodes ids to text.

    Attributes:
        name: the file that the tokenizer was read from.
        backend: the `tokenizers.Tokenizer`, which also encodes markup.
        special: ids of markup, roles and fixed words, checked against the file.
    """

    def __init__(self, backend: Any, name: str) -> None:
        """Wrap `backend`, a `tokenizers.Tokenizer`.

        Raises:
            SvmError: an id of the stream's markup is not Qwen2.5-VL's.
        """
        import tokenizers

        self.name = name
        self.backend = backend
        # The same merges without the added tokens, so that no text becomes markup.
        self._plain = tokenizers.Tokenizer(backend.model)
        self._plain.normalizer = backend.normalizer
        self._plain.pre_tokenizer = backend.pre_tokenizer
        self.special = SpecialIds()
        self.special.check(self.encode_markup, name)

    @classmethod
    def load(cls, source: str | Path | None = None) -> Self:
        """Read the tokenizer of `source`.

        Args:
            source: a checkpoint's folder with a ``tokenizer.json``, an id on the Hugging Face hub, or None. None, and a
                folder without the file, give the Qwen2.5-VL tokenizer that comes with this package.

        Raises:
            SvmError: there is no such folder or hub id, or its file is not Qwen2.5-VL's tokenizer.
        """
        import tokenizers

        path = tokenizer_file(source)
        text = _checked_json(path)
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        # The library raises no narrower class, and panics on merges of tokens that are not there.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise SvmError(
                f"{path} is damaged ({' '.join(str(error).split()):.100}); copy the file again from its checkpoint."
            ) from error
        return cls(backend, str(path))

    def __len__(self) -> int:
        """Return the number of ids, added tokens included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` after Unicode NFC normalization; markup in it is encoded as plain text."""
        return list(self._plain.encode(_without_surrogates(text), add_special_tokens=False).ids)

    def encode_markup(self, text: str) -> list[int]:
        """Return the ids of `text`, with markup such as ``<|im_start|>`` encoded as its own ids."""
        return list(self.backend.encode(_without_surrogates(text), add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int], *, markup: bool = False) -> str:
        """Return the text of `ids`.

        Bytes that are not UTF-8 become U+FFFD, and ids outside the vocabulary are skipped. Markup is skipped unless
        `markup` is true.
        """
        return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=not markup))

    def byte_ids(self) -> list[int]:
        """Return the ids of the 256 single bytes, ascending."""
        from tokenizers.pre_tokenizers import ByteLevel

        return sorted(self.backend.token_to_id(char) for char in ByteLevel.alphabet())

    def split(self, token: int) -> list[int]:
        """Return the ids that were merged into `token`: itself for a byte, the ids of its text for markup.

        The pair with the lowest rank merges first (BPE, Sennrich et al., arXiv 1508.07909); ranks are ids here.

        Raises:
            ValueError: the id is unknown.
        """
        spelling = self.backend.id_to_token(token)
        if spelling is None:
            raise ValueError(f"there is no token {token}")
        if self._plain.token_to_id(spelling) is None:
            return self.encode(spelling)
        parts = list(spelling)
        while len(parts) > 2:
            ranks = [self._rank(a + b, token) for a, b in pairwise(parts)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] == token:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        return [i for part in parts if (i := self._plain.token_to_id(part)) is not None]

    def _rank(self, spelling: str, limit: int) -> int:
        """Return the rank of `spelling`, or `limit` if it has no lower rank."""
        rank = self._plain.token_to_id(spelling)
        return limit if rank is None else min(int(rank), limit)


def tokenizer_file(source: str | Path | None) -> Path:
    """Return the path of the ``tokenizer.json`` that `Tokenizer.load` reads for `source`.

    Raises:
        SvmError: there is no such folder or hub id.
    """
    if source is None:
        return SHIPPED / TOKENIZER
    if Path(source).is_dir():
        own = Path(source) / TOKENIZER
        return own if own.is_file() else SHIPPED / TOKENIZER
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return _from_hub(source)
    raise SvmError(f"{source} is not a folder; name a checkpoint's folder or an id on the Hugging Face hub.")


def _from_hub(repo_id: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return Path(hf_hub_download(repo_id, TOKENIZER))
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        raise SvmError(
            f"{repo_id} is not a folder, and the Hugging Face hub did not return its {TOKENIZER} "
            f"({type(error).__name__}); check the name, the login and the connection."
        ) from error


def _checked_json(path: Path) -> str:
    """Return the text of `path` after a check; the library would raise a bare Exception."""
    try:
        text = read_file(path).decode("utf-8")
        content = parse_json(text)
    except ValueError as error:
        raise SvmError(f"{path} is not JSON ({error}); copy the file again from its checkpoint.") from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise SvmError(f"{path} is not a byte-level BPE; use the tokenizer.json of a Qwen2.5-VL checkpoint.")
    return text


def _without_surrogates(text: str) -> str:
    """Return `text` with lone surrogates, which broken bytes from a terminal become, as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
