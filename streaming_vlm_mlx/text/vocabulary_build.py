"""Which ids get a row: the markup and all bytes first, then what a corpus says most."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text.layout import layout_ids
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary

Counts = npt.NDArray[np.int64]


def count_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Counts:
    """Return how often each id occurs in `texts`, int64 [ids of the tokenizer]."""
    counts = np.zeros(len(tokenizer), np.int64)
    for text in texts:
        counts += np.bincount(np.asarray(tokenizer.encode(text), np.int64), minlength=len(counts))
    return counts


def build(tokenizer: Tokenizer, counts: Counts, size: int, extra: Sequence[int] = ()) -> CompactVocabulary:
    """Return a vocabulary of `size` rows: what every one must hold, `extra`, then the most counted ids.

    Ids that were counted equally often, never among them, come in the order of their rank. Rows ascend by id.

    Args:
        tokenizer: the tokenizer that the ids are of.
        counts: how often each id occurs, int64 [ids of the tokenizer].
        size: rows of the embedding.
        extra: further ids that must have a row.

    Raises:
        SvmError: `size` has no room for what must have a row, or is beyond the tokenizer's ids.
    """
    required = np.unique([*tokenizer.byte_ids(), *layout_ids(tokenizer), *extra])
    if not len(required) <= size <= len(tokenizer):
        raise SvmError(
            f"a compact vocabulary of {size} rows is not possible; choose {len(required)} to {len(tokenizer)}."
        )
    order = np.argsort(-counts, kind="stable")
    others = order[~np.isin(order, required)]
    return CompactVocabulary(np.sort(np.concatenate([required, others[: size - len(required)]])), tokenizer)


def preset(tokenizer: Tokenizer, size: int) -> CompactVocabulary:
    """Return a vocabulary of `size` rows without a corpus: what must be there, then the first ranks.

    Raises:
        SvmError: as `build`.
    """
    return build(tokenizer, np.zeros(len(tokenizer), np.int64), size)
