"""Qwen's byte-level BPE between text and ids, through the `tokenizers` library.

What a viewer waits for goes this way; transformers, which takes seconds to import, is for `processors`.
"""

import json
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text.special import SpecialIds

if TYPE_CHECKING:
    import mlx.core as mx

SHIPPED = Path(__file__).with_name("qwen")
_FILE = "tokenizer.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Tokenizer:
    """Text to ids and back.

    Attributes:
        name: where the tokenizer was read from.
        backend: the library's tokenizer, which knows markup.
        special: ids of markup, roles and the stream's fixed words, checked against the file.
    """

    def __init__(self, backend: Any, name: str) -> None:
        """Wrap `backend`, a `tokenizers.Tokenizer`.

        Raises:
            SvmError: an id of the stream's markup is not Qwen2.5-VL's.
        """
        import tokenizers

        self.name = name
        self.backend = backend
        # The same ranks without the added tokens: no text, whatever it spells, turns into markup.
        self._plain = tokenizers.Tokenizer(backend.model)
        self._plain.normalizer = backend.normalizer
        self._plain.pre_tokenizer = backend.pre_tokenizer
        self.special = SpecialIds()
        self.special.check(self.encode_markup, name)

    @classmethod
    def load(cls, source: str | Path | None = None) -> Self:
        """Read the tokenizer of `source`.

        Args:
            source: a checkpoint's folder, whose ``tokenizer.json`` is taken, or Qwen's own where it has none; an id
                on the Hugging Face hub; or None for Qwen's own, which is shipped with this package.

        Raises:
            SvmError: there is no such folder or hub id, or its file is not Qwen2.5-VL's tokenizer.
        """
        import tokenizers

        path = tokenizer_file(source)
        return cls(tokenizers.Tokenizer.from_str(_checked_json(path)), str(path))

    def __len__(self) -> int:
        """Return how many ids there are, added tokens counted."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` after Unicode's NFC; markup spelled in it stays plain text."""
        return list(self._plain.encode(_without_surrogates(text), add_special_tokens=False).ids)

    def encode_markup(self, text: str) -> list[int]:
        """Return the ids of `text`; ``<|im_start|>`` and its like become their own ids."""
        return list(self.backend.encode(_without_surrogates(text), add_special_tokens=False).ids)

    def encode_mx(self, text: str) -> "mx.array":
        """Return the ids of `text`, as `encode` gives them, as an int32 array [tokens]."""
        import mlx.core as mx

        return mx.array(self.encode(text), dtype=mx.int32)

    def decode(self, ids: Iterable[int], *, markup: bool = False) -> str:
        """Return the text of `ids`.

        Bytes that are no UTF-8 become U+FFFD, ids beyond the vocabulary nothing, and markup only shows on request.
        """
        return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=not markup))

    def byte_ids(self) -> list[int]:
        """Return the ids of the 256 single bytes, ascending."""
        from tokenizers.pre_tokenizers import ByteLevel

        return sorted(self.backend.token_to_id(char) for char in ByteLevel.alphabet())

    def split(self, token: int) -> list[int]:
        """Return the ids that were merged to make `token`; itself for a byte, its spelling's ids for markup.

        The lower of two neighbours' ranks merges first, as in Sennrich et al., arXiv 1508.07909; ranks are ids here.

        Raises:
            ValueError: there is no such id.
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
        """Return the rank of `spelling`; `limit` when it has none below that."""
        rank = self._plain.token_to_id(spelling)
        return limit if rank is None else min(int(rank), limit)


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


def tokenizer_file(source: str | Path | None) -> Path:
    """Return the path of the ``tokenizer.json`` that `Tokenizer.load` takes for `source`.

    Raises:
        SvmError: there is no such folder or hub id.
    """
    if source is None:
        return SHIPPED / _FILE
    if Path(source).is_dir():
        own = Path(source) / _FILE
        return own if own.is_file() else SHIPPED / _FILE
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return _from_hub(source)
    raise SvmError(f"{source} is no folder; name a checkpoint's folder or an id on the Hugging Face hub.")


def _from_hub(repo_id: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return Path(hf_hub_download(repo_id, _FILE))
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        raise SvmError(
            f"{repo_id} is no folder here, and the Hugging Face hub did not give its {_FILE} "
            f"({type(error).__name__}); check the name, the login and the connection."
        ) from error


def _checked_json(path: Path) -> str:
    """Return the text of `path`; the library's own complaint would be a bare Exception."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise SvmError(f"{path} can not be read: {error.strerror}.") from error
    except ValueError as error:
        raise SvmError(f"{path} is not JSON ({error}); copy the file again from its checkpoint.") from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise SvmError(f"{path} is no byte-level BPE; use the tokenizer.json of a Qwen2.5-VL checkpoint.")
    return text


def _without_surrogates(text: str) -> str:
    """Return `text` with lone surrogates, which a terminal makes of broken bytes, as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
