"""Records as token ids and labels, equal to what StreamingVLM's ``LMMDataset`` gives its trainer."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import PixelConfig, StreamConfig
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.spans import new_span, positions
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.detokenizer import Scratchpad
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import Vocabulary
from streaming_vlm_mlx.video.image_processor import grid_thw
from streaming_vlm_mlx.video.source import probe

IGNORED = -100
# A place that no sequence reaches.
ALWAYS = 2**30

Ids = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class SampleConfig(FromDict):
    """How a record becomes a sample.

    Attributes:
        text_sink: tokens kept at the head of the previous text's turn, its opening markup counted.
        text_sliding_window: tokens kept at its tail, its end mark and line feed counted; 0 for both keeps all.
        tokens_per_second: temporal positions a second of video takes, of the model's vision tower; None for one a
            temporal step.
        all_text: positions count up on one axis, video too.
        pixels: how frames become patches.
        scratchpad: a question whose answer is for what is said alone, as in a stream with this setting.
        scratch_round: seconds in which what is said sees such an answer, its own counted; then it is gone.
        features_width: of the features that take the patches' place; None where there are patches.
    """

    text_sink: int = 512
    text_sliding_window: int = 512
    tokens_per_second: float | None = 2.0
    all_text: bool = False
    pixels: PixelConfig = field(default_factory=PixelConfig)
    scratchpad: str = ""
    scratch_round: int = 1
    features_width: int | None = None


@dataclass(frozen=True)
class Sample:
    """A record as the model reads it; n tokens.

    Attributes:
        input_ids: int32 [n].
        labels: int32 [n], the id where a commentary or its end mark stands, else -100.
        position_ids: int32 [3, n], M-RoPE's time, row and column.
        video_grid_thw: int32 [seconds, 3], patches of each second's video in time, down and across.
        until: int32 [n], the place from which on a token is not seen any more; None where each is seen by all behind.
        looked_until: int32 [n], the same for tokens that only look, those that are not in `speaks`; None with `until`.
        speaks: bool [n].
    """

    input_ids: Ids
    labels: Ids
    position_ids: Ids
    video_grid_thw: Ids
    until: Ids | None = None
    looked_until: Ids | None = None
    speaks: Flags | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class _Piece:
    """Tokens that are all learnt or all not; those of a video have the grid of its merged patches.

    Those of a scratchpad see one another; else they, and what was said, are seen by what is said alone.
    """

    ids: tuple[int, ...]
    is_target: bool = False
    grid: Grid | None = None
    is_scratch: bool = False
    is_said: bool = False


class SampleBuilder:
    """Turns records into samples; decodes no frame."""

    def __init__(self, tokenizer: Tokenizer, config: SampleConfig, vocabulary: Vocabulary | None = None) -> None:
        """Write in the ids of `tokenizer`, those alone that have a row in `vocabulary`, if one is given."""
        self.config = config
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._template = ChatTemplate.of(tokenizer, "training")

    @property
    def pad_id(self) -> int:
        """The id that fills rows up."""
        return self._template.special.endoftext

    def pixels_shape(self, sample: Sample) -> tuple[int, int]:
        """Return [patches, values] of the pixels that belong to `sample`; [units, width] of features."""
        pixels, width = self.config.pixels, self.config.features_width
        if width is not None:
            return int(sample.video_grid_thw.prod(axis=1).sum()) // pixels.merge_size**2, width
        return int(sample.video_grid_thw.prod(axis=1).sum()), 3 * pixels.temporal_patch_size * pixels.patch_size**2

    def build(self, record: StreamingRecord) -> Sample:
        """Return the sample of `record`.

        Raises:
            SvmError: the record does not know its clip's size and the clip cannot be read, or its shape is absurd.
        """
        width, height = record.width, record.height
        if not (width and height):
            info = probe(Path(record.video))
            width, height = info.width, info.height
        grid = grid_thw(width, height, int(record.fps), self.config.pixels)
        pieces = [*self._head(record.previous)]
        for turn in record.turns:
            pieces += self._turn(turn, grid)
        return self._joined(pieces, np.array([grid] * len(record.turns), np.int32), record.fps)

    def _head(self, previous: str) -> Iterator[_Piece]:
        """Return the system turn and the previous text, cut by the rule of ``LMMDataset``."""
        special = self._template.special
        opening = (special.im_start, *special.previous, special.newline)
        system = self._template.head_open[: -len(opening)]
        turn = (*opening, *self._encode(previous), *self._template.head_close)
        sink, tail = self.config.text_sink, self.config.text_sliding_window
        if (sink or tail) and sink + tail < len(turn):
            turn = turn[:sink] + turn[len(turn) - tail :]
        # The turn's markup is no text; the cut may have taken of it.
        opened, closed = min(len(opening), len(turn)), len(self._template.head_close)
        yield _Piece(system + turn[:opened])
        if turn[opened:-closed]:
            yield _Piece(turn[opened:-closed], is_said=True)
        yield _Piece(turn[max(opened, len(turn) - closed) :])

    def _turn(self, turn: Turn, grid: Grid) -> Iterator[_Piece]:
        special, merge = self._template.special, self.config.pixels.merge_size
        merged = grid[0], grid[1] // merge, grid[2] // merge
        # The line feed behind the role merges with one that opens the commentary, so both are encoded as one text.
        said = self._encode("\n" + turn.assistant_text)
        yield _Piece((*self._template.user_open, *self._encode(turn.user_text)))
        yield _Piece(self._template.video(merged[0] * merged[1] * merged[2]), grid=merged)
        yield _Piece((*self._template.turn_close, special.im_start, special.assistant, said[0]))
        line = self._line(said[1:]) if turn.question and turn.question == self.config.scratchpad else 0
        if line:
            yield _Piece(tuple(said[1 : 1 + line]), is_target=True, is_scratch=True)
        yield _Piece(tuple(said[1 + line :]), is_target=True, is_said=True)
        # An end mark is prefilled with the next second, when what was on the scratchpad has gone.
        yield _Piece((special.im_end,), is_target=True)
        yield _Piece((special.newline,))

    def _line(self, said: list[int]) -> int:
        """Return how many tokens of `said` a stream takes for the scratchpad's line."""
        scratch = Scratchpad(self._tokenizer)
        for token in said:
            if scratch.is_full:
                break
            scratch.push(token)
        return len(scratch.ids)

    def _encode(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text)
        if self._vocabulary is None:
            return ids
        split: list[int] = self._vocabulary.to_ids(self._vocabulary.to_rows(ids)).tolist()
        return split

    def _joined(self, pieces: list[_Piece], video_grid_thw: Ids, fps: float) -> Sample:
        input_ids = np.concatenate([np.array(piece.ids, np.int32) for piece in pieces])
        is_target = np.repeat([piece.is_target for piece in pieces], [len(piece.ids) for piece in pieces])
        spans = [new_span("video" if piece.grid else "text", 0, piece.ids, piece.grid) for piece in pieces]
        speed, seconds = self.config.tokens_per_second, self.config.pixels.temporal_patch_size / fps
        steps = 1.0 if speed is None else speed * seconds
        position_ids = positions(spans, 0, StreamConfig(all_text=self.config.all_text), steps)
        labels = np.where(is_target, input_ids, IGNORED).astype(np.int32)
        positioned = position_ids.astype(np.int32)
        return Sample(input_ids, labels, positioned, video_grid_thw, **_hiding(pieces, self.config.scratch_round))


def _hiding(pieces: Sequence[_Piece], rounds: int) -> dict[str, Any]:
    """Return `until`, `looked_until` and `speaks` of a sample, nothing where it has no scratchpad."""
    if not any(piece.is_scratch for piece in pieces):
        return {}
    sizes = [len(piece.ids) for piece in pieces]
    starts = np.cumsum([0, *sizes])
    # Where what is said in each second ends; a line is seen up to the end of the last of its `rounds`.
    over = [starts[k + 1] for k, piece in enumerate(pieces) if piece.is_said and piece.is_target]
    until, looked = np.full((2, len(pieces)), ALWAYS)
    for k, piece in enumerate(pieces):
        if piece.is_scratch:
            last = over.index(starts[k + 2]) + rounds - 1
            until[k], looked[k] = over[last] if last < len(over) else ALWAYS, starts[k + 1]
        elif piece.is_said:
            looked[k] = starts[k]
    speaks = np.repeat([piece.is_said for piece in pieces], sizes)
    # The token that ends a line is the first that speaks.
    speaks[[starts[k + 1] - 1 for k, piece in enumerate(pieces) if piece.is_scratch]] = True
    return {
        "until": np.repeat(until.astype(np.int32), sizes),
        "looked_until": np.repeat(looked.astype(np.int32), sizes),
        "speaks": speaks,
    }


class Windows:
    """The windows of all records by number; a record is read when one of its windows is asked for."""

    def __init__(self, files: Sequence[RecordFile], seconds: int, stride: int, drop_context_prob: float = 0.0) -> None:
        """Cut the records of `files` into windows of at most `seconds` seconds that start every `stride` seconds.

        A share `drop_context_prob` of them, spread evenly, has no previous text, like a stream that begins there.

        Raises:
            SvmError: windows that overlap wholly, or not at all in between, were asked for.
        """
        if not 1 <= stride <= seconds:
            raise SvmError(
                f"windows of {seconds} s every {stride} s: the stride must be from 1 to the window's length."
            )
        self._files, self._drop_context_prob = files, drop_context_prob
        self._seconds, self._stride = seconds, stride
        turns = np.concatenate([file.turns for file in files])
        counts = 1 + np.maximum(0, -(-(turns - seconds) // stride))
        self._ends = np.cumsum(counts)
        self._file_ends = np.cumsum([len(file) for file in files])
        self._numbers = range(int(self._ends[-1]))

    def __len__(self) -> int:
        return len(self._numbers)

    def share(self, rank: int, ranks: int) -> "Windows":
        """Return every window of number `rank`, `rank` + `ranks`, and so on: shares that together are the whole."""
        part = copy(self)
        part._numbers = self._numbers[rank::ranks]
        return part

    def __getitem__(self, number: int) -> StreamingRecord:
        """Read window `number`, a record in itself.

        Raises:
            SvmError: its file changed under our hands.
        """
        number = self._numbers[number]
        place = int(np.searchsorted(self._ends, number, side="right"))
        file = int(np.searchsorted(self._file_ends, place, side="right"))
        record = self._files[file][place - (int(self._file_ends[file - 1]) if file else 0)]
        window = number - (int(self._ends[place - 1]) if place else 0)
        record = cut(record, window * self._stride, window * self._stride + self._seconds)
        drops_context = int(number * self._drop_context_prob) != int((number + 1) * self._drop_context_prob)
        return replace(record, previous="") if drops_context else record


def cut(record: StreamingRecord, first: int, behind: int) -> StreamingRecord:
    """Return the seconds from `first` to before `behind` as a record; what was said before is its previous text.

    It reads as a stream does that has let go of the seconds before: each commentary that moved has a space in front.
    """
    turns = record.turns[first:behind]
    if not first:
        return record if len(turns) == len(record.turns) else replace(record, turns=turns, video_end=turns[-1].end)
    said = (turn.commentary for turn in record.turns[:first])
    return replace(
        record,
        turns=turns,
        video_start=turns[0].start,
        video_end=min(turns[-1].end, max(record.video_end, turns[0].end)),
        previous=record.previous + "".join(f" {text}" for text in said if text),
    )
