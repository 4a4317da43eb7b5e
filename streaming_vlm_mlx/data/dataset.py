"""The training dataset: records as token ids and labels, equal to those of StreamingVLM's ``LMMDataset``."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.positions import mrope_positions
from streaming_vlm_mlx.stream.masks import drop_places, token_visibility
from streaming_vlm_mlx.stream.spans import Span, join_ids, new_span
from streaming_vlm_mlx.stream.turns import video_spans
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.detokenizer import Scratchpad
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import Vocabulary
from streaming_vlm_mlx.video.image_processor import grid_thw
from streaming_vlm_mlx.video.pyav_reader import probe

IGNORED = -100

Ids = npt.NDArray[np.int32]
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class SampleConfig(FromDict):
    """Settings for turning records into samples.

    Attributes:
        text_sink: tokens kept at the head of the previous text's turn, including its opening markup.
        text_sliding_window: tokens kept at its tail, including its end mark and line feed; 0 for both keeps all.
        tokens_per_second: temporal positions that a second of video takes in the model's vision tower; None for one
            position a temporal step.
        all_text: positions of video count up on one axis, like text.
        pixels: settings of the image processor.
        scratchpad: the question whose answers are scratchpad lines, as in a stream with this setting.
        scratch_round: seconds in which commentary can attend to such a line, its own included.
        features_width: width of precomputed vision features that replace the patches; None for patches.
        has_stamps: whether each temporal step of a video is a span of its own behind its time, as for Qwen3-VL.
    """

    text_sink: int = 512
    text_sliding_window: int = 512
    tokens_per_second: float | None = 2.0
    all_text: bool = False
    pixels: PixelConfig = field(default_factory=PixelConfig)
    scratchpad: str = ""
    scratch_round: int = 1
    features_width: int | None = None
    has_stamps: bool = False


@dataclass(frozen=True)
class Sample:
    """A tokenized record of n tokens.

    Attributes:
        input_ids: int32 [n].
        labels: int32 [n], the ids of commentary and its end mark, else -100.
        position_ids: int32 [3, n], M-RoPE's time, row and column.
        video_grid_thw: int32 [seconds, 3], patches of each second's video in time, down and across.
        visibility: int32 [n], see `masks.token_visibility`; None without a scratchpad, for plain causal attention.
        dropped_at: int32 [n], see `masks.drop_places`; None with `visibility`.
    """

    input_ids: Ids
    labels: Ids
    position_ids: Ids
    video_grid_thw: Ids
    visibility: Ids | None = None
    dropped_at: Ids | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


class SampleBuilder:
    """Turns records into samples, without decoding a frame."""

    def __init__(self, tokenizer: Tokenizer, config: SampleConfig, vocabulary: Vocabulary | None = None) -> None:
        """Use the ids of `tokenizer`; with a `vocabulary`, only ids that it has a row for."""
        self.config = config
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._template = ChatTemplate.of(tokenizer, "training", has_stamps=config.has_stamps)

    @property
    def pad_id(self) -> int:
        """The padding id."""
        return self._template.special.endoftext

    def pixels_shape(self, sample: Sample) -> tuple[int, int]:
        """Return the shape of the pixels of `sample`, [patches, values]; of features, [merged patches, width]."""
        pixels, width = self.config.pixels, self.config.features_width
        if width is not None:
            return int(sample.video_grid_thw.prod(axis=1).sum()) // pixels.merge_size**2, width
        return int(sample.video_grid_thw.prod(axis=1).sum()), 3 * pixels.temporal_patch_size * pixels.patch_size**2

    def build(self, record: StreamingRecord) -> Sample:
        """Return the sample of `record`.

        Raises:
            SvmError: the record lacks its clip's size and the clip cannot be read, or the size cannot be used.
        """
        width, height = record.width, record.height
        if not (width and height):
            info = probe(Path(record.video))
            width, height = info.width, info.height
        grid = grid_thw(width, height, int(record.fps), self.config.pixels)
        spans = [*self._head(record.previous)]
        for number, turn in enumerate(record.turns):
            spans += self._turn(turn, number, grid, record.fps)
        return self._joined(spans, np.array([grid] * len(record.turns), np.int32), record.fps)

    def _head(self, previous: str) -> Iterator[Span]:
        """Yield the system turn and the previous text, cut by the rule of ``LMMDataset``."""
        system, opening, closing = self._template.system_turn, self._template.previous_open, self._template.turn_close
        turn = (*opening, *self._encode(previous), *closing)
        sink, tail = self.config.text_sink, self.config.text_sliding_window
        if (sink or tail) and sink + tail < len(turn):
            turn = turn[:sink] + turn[len(turn) - tail :]
        # The turn's markup is not previous text; the cut may have removed some of it.
        opened, closed = min(len(opening), len(turn)), len(closing)
        yield new_span("head", -1, system + turn[:opened])
        yield new_span("previous", -1, turn[opened:-closed])
        yield new_span("head", -1, turn[max(opened, len(turn) - closed) :])

    def _turn(self, turn: Turn, number: int, grid: Grid, fps: float) -> Iterator[Span]:
        """Yield the user turn and the assistant turn of second `number`."""
        template, special, pixels = self._template, self._template.special, self.config.pixels
        merged = grid[0], grid[1] // pixels.merge_size, grid[2] // pixels.merge_size
        # The line feed after the role merges with one that opens the commentary, so both are encoded as one text.
        said = self._encode("\n" + turn.assistant_text)
        line = self._line(said[1:]) if turn.question and turn.question == self.config.scratchpad else 0
        yield new_span("open", number, template.user_open)
        yield new_span("time", number, self._encode(turn.user_text))
        yield from video_spans(template, self._encode, number, turn.start, merged, fps, pixels.temporal_patch_size)
        yield new_span("close", number, template.turn_close)
        yield new_span("assistant", number, (special.im_start, special.assistant, said[0]))
        if line:
            yield new_span("scratch", number, said[1 : 1 + line])
        yield new_span("text", number, said[1 + line :])
        yield new_span("end", number, (special.im_end, special.newline))

    def _line(self, said: list[int]) -> int:
        """Return how many tokens of `said` a stream takes as the scratchpad line."""
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

    def _joined(self, spans: list[Span], video_grid_thw: Ids, fps: float) -> Sample:
        input_ids = join_ids(spans)
        is_target = np.concatenate([_learned(span) for span in spans])
        speed, seconds = self.config.tokens_per_second, self.config.pixels.temporal_patch_size / fps
        steps = 1.0 if speed is None else speed * seconds
        pieces = ((len(span.ids), None if self.config.all_text else span.grid) for span in spans)
        has_scratchpad = any(span.part == "scratch" for span in spans)
        return Sample(
            input_ids=input_ids,
            labels=np.where(is_target, input_ids, IGNORED).astype(np.int32),
            position_ids=mrope_positions(pieces, 0, steps).astype(np.int32),
            video_grid_thw=video_grid_thw,
            visibility=token_visibility(spans) if has_scratchpad else None,
            dropped_at=drop_places(spans, self.config.scratch_round) if has_scratchpad else None,
        )


def _learned(span: Span) -> npt.NDArray[np.bool_]:
    """Return which tokens of `span` the model learns to write; of an end, the mark without its line feed."""
    learned = np.full(len(span.ids), span.part in ("scratch", "text", "end"))
    if span.part == "end":
        learned[1:] = False
    return learned


class Windows:
    """The windows of all records, by number; a record is read when one of its windows is requested."""

    def __init__(self, files: Sequence[RecordFile], seconds: int, stride: int, drop_context_prob: float = 0.0) -> None:
        """Cut the records of `files` into windows of at most `seconds` seconds that start every `stride` seconds.

        A fraction `drop_context_prob` of them, spread evenly, has no previous text, like a stream that begins there.

        Raises:
            SvmError: `stride` is below 1 or above `seconds`.
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
        """Return the windows `rank`, `rank` + `ranks`, and so on; the shares of all ranks make up the whole."""
        part = copy(self)
        part._numbers = self._numbers[rank::ranks]
        return part

    def __getitem__(self, number: int) -> StreamingRecord:
        """Read window `number` as a record.

        Raises:
            SvmError: its file has changed since it was opened.
        """
        number = self._numbers[number]
        place = int(np.searchsorted(self._ends, number, side="right"))
        file = int(np.searchsorted(self._file_ends, place, side="right"))
        record = self._files[file][place - (int(self._file_ends[file - 1]) if file else 0)]
        window = number - (int(self._ends[place - 1]) if place else 0)
        record = cut(record, window * self._stride, window * self._stride + self._seconds)
        drops_context = int(number * self._drop_context_prob) != int((number + 1) * self._drop_context_prob)
        return replace(record, previous="") if drops_context else record


def cut(record: StreamingRecord, first: int, end: int) -> StreamingRecord:
    """Return the seconds from `first` up to `end`, exclusive, as a record; earlier commentary is its previous text.

    The previous text reads as in a stream that has pruned these seconds: each commentary in it begins with a space.
    """
    turns = record.turns[first:end]
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
