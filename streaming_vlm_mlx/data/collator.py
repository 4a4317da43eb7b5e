"""Batches: samples padded to one length or packed end to end, with their pixels."""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.data.dataset import IGNORED, Ids, Sample, SampleBuilder, Windows
from streaming_vlm_mlx.data.frame_workers import FrameJob, FramePool, PixelValues
from streaming_vlm_mlx.data.records import StreamingRecord
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.masks import NEVER, OPEN

NO_SAMPLE = -1


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch: `rows` rows of `length` tokens.

    A row holds one sample, or several packed end to end; a token attends to earlier tokens of its own sample only.

    Attributes:
        input_ids: int32 [rows, length], padded at the end of each row.
        labels: int32 [rows, length], target ids, not shifted; -100 elsewhere.
        position_ids: int32 [3, rows, length]; each sample starts at 0.
        segments: int32 [rows, length], the number of a token's sample in its row, -1 for padding.
        video_grid_thw: int32 [videos, 3], patches of each second's video, row by row in the order of the tokens.
        visibility: int32 [rows, length], see `masks.token_visibility`; None without a scratchpad.
        dropped_at: int32 [rows, length], the place of its row from which on a token is dropped; None with `visibility`.
    """

    input_ids: Ids
    labels: Ids
    position_ids: Ids
    segments: Ids
    video_grid_thw: Ids
    visibility: Ids | None = None
    dropped_at: Ids | None = None


def collate(rows: Sequence[Sequence[Sample]], pad_id: int, pad_to_multiple_of: int = 1) -> Tokens:
    """Stack `rows` of samples, padded to the longest row and to a multiple of `pad_to_multiple_of`."""
    longest = max(sum(len(sample) for sample in row) for row in rows)
    shape = len(rows), -(-longest // pad_to_multiple_of) * pad_to_multiple_of
    has_scratchpad = any(sample.visibility is not None for row in rows for sample in row)
    tokens = Tokens(
        input_ids=np.full(shape, pad_id, np.int32),
        labels=np.full(shape, IGNORED, np.int32),
        position_ids=np.zeros((3, *shape), np.int32),
        segments=np.full(shape, NO_SAMPLE, np.int32),
        video_grid_thw=np.concatenate([sample.video_grid_thw for row in rows for sample in row]),
        visibility=np.full(shape, OPEN, np.int32) if has_scratchpad else None,
        dropped_at=np.full(shape, NEVER, np.int32) if has_scratchpad else None,
    )
    for number, row in enumerate(rows):
        at = 0
        for segment, sample in enumerate(row):
            here = slice(at, at + len(sample))
            tokens.input_ids[number, here] = sample.input_ids
            tokens.labels[number, here] = sample.labels
            tokens.position_ids[:, number, here] = sample.position_ids
            tokens.segments[number, here] = segment
            if tokens.visibility is not None and sample.visibility is not None:
                tokens.visibility[number, here] = sample.visibility
            if tokens.dropped_at is not None and sample.dropped_at is not None:
                tokens.dropped_at[number, here] = np.where(sample.dropped_at < NEVER, sample.dropped_at + at, NEVER)
            at += len(sample)
    return tokens


def plan_rows(lengths: Sequence[int], max_packed_tokens: int | None) -> list[list[int]]:
    """Assign samples of `lengths` tokens to rows, short rows first.

    Args:
        lengths: tokens of each sample.
        max_packed_tokens: None gives each sample a row of its own. A number packs samples into rows of at most so many
            tokens (best fit, longest first); a longer sample has a row of its own.

    Returns:
        the numbers of the samples in each row.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    if max_packed_tokens is None:
        return [[int(number)] for number in order]
    rows: list[list[int]] = []
    room: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    for number in reversed(order.tolist()):
        fitting = np.flatnonzero(room >= lengths[number])
        if len(fitting):
            best = int(fitting[np.argmin(room[fitting])])
            rows[best].append(number)
            room[best] -= lengths[number]
        else:
            rows.append([number])
            room = np.append(room, max_packed_tokens - lengths[number])
    return sorted(rows, key=lambda row: sum(lengths[number] for number in row))


Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BatchConfig(FromDict):
    """How samples become batches.

    Attributes:
        batch_size: rows of a batch.
        max_packed_tokens: null pads each sample to the longest of its batch; a number packs samples into rows of so
            many tokens.
        pad_to_multiple_of: pads rows to a multiple of so many tokens, which keeps the number of different shapes small.
        pool: samples that are tokenized at a time and sorted by length.
        shuffle: whether the order changes from epoch to epoch; false keeps the file's order, apart from the sorting.
        workers: processes that decode video; 0 decodes in a thread.
        cache_mb: megabytes of decoded frames to keep.
        prefetch: batches that are prepared while one is computed.
    """

    batch_size: int = 1
    max_packed_tokens: int | None = None
    pad_to_multiple_of: int = 1
    pool: int = 128
    shuffle: bool = True
    workers: int = 1
    cache_mb: float = 512.0
    prefetch: int = 2

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """Return the new names of settings, by the old name."""
        return {"multiple": "pad_to_multiple_of", "row_tokens": "max_packed_tokens"}

    def check(self) -> None:
        """Check the sizes.

        Raises:
            SvmError: names the first that is too small.
        """
        least = {"batch_size": 1, "pad_to_multiple_of": 1, "pool": 1, "workers": 0, "cache_mb": 0, "prefetch": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise SvmError(f"{name} is {getattr(self, name)}; it must be {value} or more.")
        if self.max_packed_tokens is not None and self.max_packed_tokens < 1:
            raise SvmError(f"max_packed_tokens is {self.max_packed_tokens}; it must be 1 or more, or null.")


@dataclass(frozen=True)
class Position(FromDict):
    """A place in the dataset: before batch `batch` of this rank, in pool `pool` of epoch `epoch`."""

    epoch: int = 0
    pool: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Batch:
    """The input of one training step.

    Attributes:
        tokens: the rows of tokens.
        pixel_values: float32 [patches, 1176], in the order of ``tokens.video_grid_thw``.
        numbers: numbers of the windows in it.
        seconds: seconds of video in it.
        epoch: its epoch.
        following: the position after it.
    """

    tokens: Tokens
    pixel_values: PixelValues
    numbers: tuple[int, ...]
    seconds: int
    epoch: int
    following: Position


@dataclass(frozen=True)
class _Item:
    """Window `number` and its tokens."""

    number: int
    record: StreamingRecord
    sample: Sample

    def job(self, builder: SampleBuilder) -> FrameJob:
        r, fps = self.record, int(self.record.fps)
        return FrameJob(r.video, r.video_start, r.video_end, len(r.turns) * fps, fps, builder.config.pixels)


_Rows = list[list[_Item]]


class Batches:
    """The batches of a dataset, for one of `ranks` trainers that work in lockstep.

    Attributes:
        skipped: numbers of the windows that could not be used so far.
    """

    def __init__(
        self,
        windows: Windows,
        builder: SampleBuilder,
        config: BatchConfig,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Store the arguments; nothing is read yet.

        Args:
            windows: the dataset.
            builder: tokenizes the windows.
            config: sizes.
            seed: seed of the order; the same seed gives the same batches.
            rank: number of this trainer. All trainers get the same number of batches, of similar lengths in each step;
                if the batches of a pool do not divide evenly, its first ones are used twice.
            ranks: number of trainers.
            report: called with ``file:line: skipped: reason`` of each window that cannot be used.

        Raises:
            SvmError: a size is too small.
        """
        config.check()
        self._windows, self._builder, self._config = windows, builder, config
        self._seed, self._rank, self._ranks = seed, rank, ranks
        self._report = report
        self.skipped = set[int]()

    def read(self, frames: FramePool, start: Position | None = None, epochs: int | None = None) -> Iterator[Batch]:
        """Yield batches from `start` (None for the beginning) until `epochs` epochs are done (None for no end).

        A window that cannot be tokenized is skipped. One whose frames cannot be decoded stays in its batch, black and
        without labels, so that the ranks stay in lockstep.

        Raises:
            SvmError: no window can be used.
        """
        ahead: deque[tuple[_Rows, list[Future[PixelValues]], Position, int]] = deque()
        for rows, following, epoch in self._planned(start or Position(), epochs):
            jobs = [item.job(self._builder) for row in rows for item in row]
            ahead.append((rows, [frames.submit(job) for job in jobs], following, epoch))
            if len(ahead) > self._config.prefetch:
                yield self._made(*ahead.popleft())
        while ahead:
            yield self._made(*ahead.popleft())

    def _planned(self, start: Position, epochs: int | None) -> Iterator[tuple[_Rows, Position, int]]:
        """Yield the rows of each batch, the position after it and its epoch."""
        pools = math.ceil(len(self._windows) / self._config.pool)
        for epoch in itertools.count(start.epoch) if epochs is None else range(start.epoch, epochs):
            order = self._order(epoch)
            usable = start.pool > 0
            for pool in range(start.pool, pools):
                batches = self._batches_of_pool(epoch, pool, order)
                usable = usable or bool(batches)
                end = Position(epoch, pool + 1) if pool + 1 < pools else Position(epoch + 1)
                for number in range(start.batch, len(batches)):
                    last = number + 1 == len(batches)
                    yield batches[number], end if last else Position(epoch, pool, number + 1), epoch
                start = Position()
            start = Position()
            if not usable:
                raise SvmError("No window of the dataset can be used; see the reasons above, and convert it again.")

    def _order(self, epoch: int) -> Numbers:
        windows = np.arange(len(self._windows))
        return np.random.default_rng([self._seed, epoch]).permutation(windows) if self._config.shuffle else windows

    def _batches_of_pool(self, epoch: int, pool: int, order: Numbers) -> list[_Rows]:
        """Return this rank's batches of pool `pool`."""
        size, ranks = self._config.batch_size, self._ranks
        items = self._items(order[pool * self._config.pool : (pool + 1) * self._config.pool])
        lengths = [len(item.sample) for item in items]
        rows = [[items[number] for number in row] for row in plan_rows(lengths, self._config.max_packed_tokens)]
        batches = [rows[at : at + size] for at in range(0, len(rows), size)]
        steps = np.arange(math.ceil(len(batches) / ranks))
        if self._config.shuffle:
            steps = np.random.default_rng([self._seed, epoch, pool]).permutation(steps)
        return [batches[(step * ranks + self._rank) % len(batches)] for step in steps]

    def _items(self, numbers: Numbers) -> list[_Item]:
        items = []
        for number in numbers.tolist():
            record: StreamingRecord | None = None
            try:
                record = self._windows[number]
                items.append(_Item(number, record, self._builder.build(record)))
            except SvmError as error:
                self._skip(number, record, str(error))
        return items

    def _skip(self, number: int, record: StreamingRecord | None, problem: str) -> None:
        """Count window `number` and report why; `problem` alone names the file where no record could be read."""
        self.skipped.add(number)
        self._report(f"{record.source}: skipped: {problem}" if record else problem)

    def _made(self, rows: _Rows, loading: list[Future[PixelValues]], following: Position, epoch: int) -> Batch:
        """Wait for the frames of `rows` and return the batch."""
        futures = iter(loading)
        loaded = [[self._loaded(item, next(futures)) for item in row] for row in rows]
        items = [item for row in rows for item in row]
        return Batch(
            tokens=collate(
                [[sample for sample, _ in row] for row in loaded], self._builder.pad_id, self._config.pad_to_multiple_of
            ),
            pixel_values=np.concatenate([values for row in loaded for _, values in row]),
            numbers=tuple(item.number for item in items),
            seconds=sum(len(item.record.turns) for item in items),
            epoch=epoch,
            following=following,
        )

    def _loaded(self, item: _Item, future: Future[PixelValues]) -> tuple[Sample, PixelValues]:
        """Return the sample with its pixels; without labels and black if they cannot be decoded."""
        shape = self._builder.pixels_shape(item.sample)
        try:
            values = future.result()
            if values.shape == shape:
                return item.sample, values
            problem = f"{item.record.video} is not of the size that its record says; convert its dataset again."
        except SvmError as error:
            problem = str(error)
        self._skip(item.number, item.record, problem)
        muted = replace(item.sample, labels=np.full_like(item.sample.labels, IGNORED))
        return muted, np.zeros(shape, np.float32)
