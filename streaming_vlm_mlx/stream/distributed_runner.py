"""One stream over a model that is split: the machine that leads tells the others what it does, and they do it too.

Clip, spans, sampler and screen are the leader's alone. What it tells is an opcode with a few numbers, and behind it the
arrays that belong to it.
"""

from enum import IntEnum

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.distributed import Ranks
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.generate import Hidden, Logits, Positions, Runner, TokenIds

_NUMBERS = 5


class Op(IntEnum):
    """What is done next; its numbers are in brackets."""

    END = 0
    OPEN = 1  # capacity, whether unrotated keys are kept, bits of the cache or 0
    KEEP = 2  # how many; then the slots
    PREFILL = 3  # new tokens, all tokens, rows of features, hidden ones or 0; then these and what is hidden
    STEP = 4  # the row, cached tokens or 0; then which of them are hidden


class DistributedRunner(Runner):
    """A runner that tells the other machines of each call before it computes its own part."""

    def __init__(
        self, model: VisionLanguageModel, ranks: Ranks, capacity: int, keep_unrotated: bool, kv_bits: int | None
    ) -> None:
        """As `Runner`, with the machines `ranks`."""
        self._ranks = ranks
        _send_op(ranks, Op.OPEN, capacity, keep_unrotated, kv_bits or 0)
        super().__init__(model, capacity, keep_unrotated, kv_bits)

    def keep(self, slots: TokenIds) -> None:
        """As `Runner.keep`."""
        _send_op(self._ranks, Op.KEEP, len(slots))
        _broadcast(self._ranks, mx.array(slots))
        super().keep(slots)

    def prefill(
        self,
        rows: TokenIds,
        positions: Positions,
        features: mx.array | None,
        is_video: npt.NDArray[np.bool_],
        hidden: Hidden | None = None,
    ) -> Logits:
        """As `Runner.prefill`."""
        count = 0 if features is None else features.shape[0]
        _send_op(self._ranks, Op.PREFILL, len(rows), positions.shape[1], count, 0 if hidden is None else len(hidden))
        for array in (rows, positions, is_video):
            _broadcast(self._ranks, mx.array(array.astype(np.int32)))
        if features is not None:
            _broadcast(self._ranks, features.astype(mx.float32))
        if hidden is not None:
            _broadcast(self._ranks, mx.array(hidden.astype(np.int32)))
        return super().prefill(rows, positions, features, is_video, hidden)

    def step(self, row: int, hidden: Hidden | None = None) -> Logits:
        """As `Runner.step`."""
        _send_op(self._ranks, Op.STEP, row, 0 if hidden is None else len(hidden))
        if hidden is not None:
            _broadcast(self._ranks, mx.array(hidden.astype(np.int32)))
        return super().step(row, hidden)


def make_runner(
    model: VisionLanguageModel, ranks: Ranks, capacity: int, keep_unrotated: bool, kv_bits: int | None
) -> Runner:
    """Return what runs `model`, on this machine or on all that hold a part of it.

    Raises:
        SvmError: the model's keys do not divide into groups of `kv_bits`.
    """
    if ranks.size == 1:
        return Runner(model, capacity, keep_unrotated, kv_bits)
    return DistributedRunner(model, ranks, capacity, keep_unrotated, kv_bits)


def release(ranks: Ranks) -> None:
    """Let the others end.

    Raises:
        SvmError: one was lost.
    """
    if ranks.size > 1:
        _send_op(ranks, Op.END)


def follow(model: VisionLanguageModel, ranks: Ranks) -> None:
    """Do what the leader tells, with this machine's part of the model, until it lets this one end.

    Raises:
        SvmError: another machine was lost.
    """
    runner: Runner | None = None
    while True:
        op, a, b, c, d = _send_op(ranks)
        if op == Op.END:
            return
        if op == Op.OPEN:
            runner = Runner(model, a, bool(b), c or None)
            continue
        assert runner is not None
        if op == Op.KEEP:
            runner.keep(_receive(ranks, (a,)))
        elif op == Op.PREFILL:
            rows, positions, is_video = _receive(ranks, (a,)), _receive(ranks, (3, b)), _receive(ranks, (a,))
            width = model.config.text_config.hidden_size
            features = _broadcast(ranks, mx.zeros((c, width), mx.float32)) if c else None
            hidden = _receive(ranks, (d,)) if d else None
            runner.prefill(rows, positions.astype(np.int64), features, is_video.astype(np.bool_), hidden)
        else:
            runner.step(a, _receive(ranks, (b,)) if b else None)


def _send_op(ranks: Ranks, op: int = 0, *numbers: int) -> list[int]:
    """Send an opcode with its numbers, or with none of both hear the leader's."""
    said = [int(op), *map(int, numbers)]
    heard = np.array(_broadcast(ranks, mx.array(said + [0] * (_NUMBERS - len(said)), mx.int32)))
    return [int(number) for number in heard]


def _receive(ranks: Ranks, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    return np.array(_broadcast(ranks, mx.zeros(shape, mx.int32)))


def _broadcast(ranks: Ranks, array: mx.array) -> mx.array:
    """Give the leader's array to all; the others hold zeros in its shape."""
    return ranks.sum(array)
