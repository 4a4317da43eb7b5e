"""Maps the tokenizer's ids to the rows of a model's embedding and head.

The engine works with the tokenizer's ids; rows are used only to index weights. A small model for one sport needs a few
thousand rows instead of Qwen's 151,936.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json, read_file
from streaming_vlm_mlx.text.chat_template import template_ids
from streaming_vlm_mlx.text.tokenizer import Tokenizer

Ids = npt.NDArray[np.int32]
_VERSION = 1


class Vocabulary(Protocol):
    """The mapping between ids and rows."""

    def __len__(self) -> int:
        """Return the number of rows."""

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the ids; equal for vocabularies with equal rows."""

    def to_rows(self, ids: Sequence[int] | Ids) -> Ids:
        """Return rows, int32 [rows], of the tokenizer's `ids` [tokens]; an id without a row becomes several."""

    def to_ids(self, rows: Sequence[int] | Ids) -> Ids:
        """Return the tokenizer's ids, int32 [rows], of `rows`."""

    def to_id(self, row: int) -> int:
        """Return the tokenizer's id of one row."""


@dataclass(frozen=True, slots=True)
class FullVocabulary:
    """A vocabulary in which every id is its own row.

    Attributes:
        size: rows of the embedding.
    """

    size: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.size

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the ids in row order."""
        return _digest(np.arange(self.size, dtype=np.int32))

    def to_rows(self, ids: Sequence[int] | Ids) -> Ids:
        """Return `ids` [tokens] as int32."""
        return np.asarray(ids, np.int32)

    def to_ids(self, rows: Sequence[int] | Ids) -> Ids:
        """Return `rows` [rows] as int32."""
        return np.asarray(rows, np.int32)

    def to_id(self, row: int) -> int:
        """Return `row`."""
        return int(row)


class CompactVocabulary:
    """A vocabulary with rows for some of the tokenizer's ids.

    An id without a row is split into the two tokens that were merged into it, and these again, down to single bytes if
    necessary. All 256 bytes have rows, so any text can be written.

    Attributes:
        ids: the tokenizer's id of each row, int32 [rows].
    """

    def __init__(self, ids: Sequence[int] | Ids, tokenizer: Tokenizer) -> None:
        """Give `ids` the rows 0, 1, 2, ...

        Raises:
            SvmError: an id occurs twice or is unknown to the tokenizer, or a single byte has no row.
        """
        self.ids: Ids = np.array(ids, np.int32)
        self.ids.setflags(write=False)
        _check(self.ids, tokenizer)
        self._tokenizer = tokenizer
        self._rows = np.full(len(tokenizer), -1, np.int32)
        self._rows[self.ids] = np.arange(len(self.ids), dtype=np.int32)
        self._split: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the ids in row order."""
        return _digest(self.ids)

    def to_rows(self, ids: Sequence[int] | Ids) -> Ids:
        """Return rows, int32 [rows], of the tokenizer's `ids` [tokens]; an id without a row becomes several.

        Raises:
            ValueError: an id is unknown to the tokenizer.
        """
        wanted = np.asarray(ids, np.int32)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self._rows):
            raise ValueError(
                f"ids reach from {wanted.min()} to {wanted.max()}, the tokenizer's end before {len(self._rows)}"
            )
        rows = self._rows[wanted]
        absent = np.flatnonzero(rows < 0)
        if not absent.size:
            return rows
        pieces = [self._rows_of_absent(int(i)) for i in wanted[absent]]
        counts = np.ones(len(rows), np.intp)
        counts[absent] = [len(p) for p in pieces]
        out = np.repeat(rows, counts)
        out[out < 0] = np.concatenate(pieces)
        return out

    def to_ids(self, rows: Sequence[int] | Ids) -> Ids:
        """Return the tokenizer's ids, int32 [rows], of `rows`."""
        return self.ids[np.asarray(rows, np.int32)]

    def to_id(self, row: int) -> int:
        """Return the tokenizer's id of one row."""
        return int(self.ids[row])

    def save(self, path: Path) -> None:
        """Write the ids in row order to `path` as JSON, atomically.

        Raises:
            SvmError: the file cannot be written.
        """
        content = {"version": _VERSION, "sha256": self.digest, "ids": self.ids.tolist()}
        write_text(path, json.dumps(content, separators=(",", ":")) + "\n")

    @classmethod
    def load(cls, path: Path, tokenizer: Tokenizer) -> Self:
        """Read what `save` wrote.

        Raises:
            SvmError: the file cannot be read, is not a vocabulary, is damaged, or does not fit `tokenizer`.
        """
        try:
            content = parse_json(read_file(path).decode("utf-8"))
        except ValueError as error:
            raise SvmError(f"{path} is not JSON; copy the vocabulary again from its checkpoint.") from error
        ids = _read_ids(content, path)
        try:
            return cls(ids, tokenizer)
        except SvmError as error:
            raise SvmError(f"{path}: {error}") from error

    def _rows_of_absent(self, token: int) -> list[int]:
        """Return the rows of the largest pieces of `token` that have one."""
        known = self._split.get(token)
        if known is None:
            known = []
            for piece in self._tokenizer.split(token):
                row = int(self._rows[piece])
                known.extend([row] if row >= 0 else self._rows_of_absent(piece))
            self._split[token] = known
        return known


def _digest(ids: Ids) -> str:
    return hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()


def _check(ids: Ids, tokenizer: Tokenizer) -> None:
    way_out = "build the vocabulary again for this tokenizer."
    if len(np.unique(ids)) != len(ids):
        raise SvmError(f"the compact vocabulary lists an id twice; {way_out}")
    if ids.size and not 0 <= ids.min() <= ids.max() < len(tokenizer):
        raise SvmError(f"the compact vocabulary lists ids beyond the tokenizer's {len(tokenizer)}; {way_out}")
    missing = np.setdiff1d(tokenizer.byte_ids(), ids)
    if missing.size:
        raise SvmError(f"the compact vocabulary has no row for the single byte of id {missing[0]}; {way_out}")


def _read_ids(content: Any, path: Path) -> Ids:
    """Return the ids in `content`, the JSON of `path`."""
    ids = content.get("ids") if isinstance(content, dict) else None
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**31 for i in ids):
        raise SvmError(f"{path} is not a vocabulary: it lacks a list 'ids' of integers; copy it from its checkpoint.")
    if content.get("version") != _VERSION:
        raise SvmError(f"{path} has version {content.get('version')!r}, this program reads {_VERSION}; update svm-tui.")
    array = np.array(ids, np.int32)
    if content.get("sha256") != _digest(array):
        raise SvmError(f"{path} is damaged: its checksum does not match its ids; copy it from its checkpoint.")
    return array


Counts = npt.NDArray[np.int64]


def count_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Counts:
    """Return how often each id occurs in `texts`, int64 [ids of the tokenizer]."""
    counts = np.zeros(len(tokenizer), np.int64)
    for text in texts:
        counts += np.bincount(np.asarray(tokenizer.encode(text), np.int64), minlength=len(counts))
    return counts


def build(tokenizer: Tokenizer, counts: Counts, size: int, extra: Sequence[int] = ()) -> CompactVocabulary:
    """Return a vocabulary of `size` rows: the required ids, `extra`, then the most frequent ids.

    Ids of equal count are taken in the order of their rank. Rows ascend by id.

    Args:
        tokenizer: the tokenizer of the ids.
        counts: how often each id occurs, int64 [ids of the tokenizer].
        size: rows of the embedding.
        extra: further ids that must have a row.

    Raises:
        SvmError: `size` is smaller than the number of required ids, or larger than the number of all ids.
    """
    required = np.unique([*tokenizer.byte_ids(), *template_ids(tokenizer), *extra])
    if not len(required) <= size <= len(tokenizer):
        raise SvmError(
            f"a compact vocabulary of {size} rows is not possible; choose {len(required)} to {len(tokenizer)}."
        )
    order = np.argsort(-counts, kind="stable")
    others = order[~np.isin(order, required)]
    return CompactVocabulary(np.sort(np.concatenate([required, others[: size - len(required)]])), tokenizer)
