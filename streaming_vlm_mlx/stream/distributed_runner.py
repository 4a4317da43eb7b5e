"""One stream over a model that is split over machines: rank 0 broadcasts each call, and the others repeat it.

Only rank 0 has the clip, the spans, the sampler and the screen. A message is an opcode with a few numbers, followed by
the arrays that belong to it.
"""

from enum import IntEnum

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.distributed import Ranks
from streaming_vlm_mlx.memory import wired_memory
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.runner import Positions, Runner, TokenIds, Visibility

_NUMBERS = 5


class Op(IntEnum):
    """The call that follows; the comments list its numbers and arrays."""

    END = 0
    OPEN = 1  # capacity, whether unrotated keys are kept, bits of the cache or 0
    KEEP = 2  # how many; then the slots
    PREFILL = 3  # new tokens, all tokens, rows of features, length of the visibility or 0; then these arrays
    STEP = 4  # the embedding row, length of the visibility or 0; then the visibility


class DistributedRunner(Runner):
    """A runner that broadcasts each call to the other machines before it computes its own part."""

    def __init__(
        self, model: VisionLanguageModel, ranks: Ranks, capacity: int, keep_unrotated: bool, kv_bits: int | None
    ) -> None:
        """Allocate a cache on every machine of `ranks`; the other arguments are those of `Runner`."""
        self._ranks = ranks
        _send_op(ranks, Op.OPEN, capacity, keep_unrotated, kv_bits or 0)
        super().__init__(model, capacity, keep_unrotated, kv_bits)

    def keep(self, slots: TokenIds) -> None:
        """See `Runner.keep`."""
        _send_op(self._ranks, Op.KEEP, len(slots))
        _broadcast(self._ranks, mx.array(slots))
        super().keep(slots)

    def prefill(
        self,
        rows: TokenIds,
        positions: Positions,
        features: mx.array | None,
        is_video: npt.NDArray[np.bool_],
        visibility: Visibility | None = None,
    ) -> mx.array:
        """See `Runner.prefill`."""
        count = 0 if features is None else features.shape[0]
        _send_op(
            self._ranks, Op.PREFILL, len(rows), positions.shape[1], count, 0 if visibility is None else len(visibility)
        )
        for array in (rows, positions, is_video):
            _broadcast(self._ranks, mx.array(array.astype(np.int32)))
        if features is not None:
            _broadcast(self._ranks, features.astype(mx.float32))
        if visibility is not None:
            _broadcast(self._ranks, mx.array(visibility.astype(np.int32)))
        return super().prefill(rows, positions, features, is_video, visibility)

    def step(self, row: int | mx.array, visibility: Visibility | None = None) -> mx.array:
        """See `Runner.step`; the logits are evaluated, because the other machines compute their parts now."""
        _send_op(self._ranks, Op.STEP, int(row), 0 if visibility is None else len(visibility))
        if visibility is not None:
            _broadcast(self._ranks, mx.array(visibility.astype(np.int32)))
        logits = super().step(row, visibility)
        mx.eval(logits)
        return logits


def can_run_ahead(ranks: Ranks) -> bool:
    """Return whether a step of decode may start before the token that it follows is read.

    A GPU would wait for the host otherwise. A CPU is the host: there is nothing to gain, and the step behind the last
    token of a reply would be computed in vain. Other machines are sent the token as a number.
    """
    return ranks.size == 1 and mx.default_device().type == mx.DeviceType.gpu


def make_runner(
    model: VisionLanguageModel, ranks: Ranks, capacity: int, keep_unrotated: bool, kv_bits: int | None
) -> Runner:
    """Return a runner of `model`, on this machine or on all machines that hold a part of it.

    Raises:
        SvmError: the model's keys do not divide into groups of `kv_bits`.
    """
    if ranks.size == 1:
        return Runner(model, capacity, keep_unrotated, kv_bits)
    return DistributedRunner(model, ranks, capacity, keep_unrotated, kv_bits)


def release(ranks: Ranks) -> None:
    """Tell the other machines to stop.

    Raises:
        SvmError: the connection to one of them was lost.
    """
    if ranks.size > 1:
        _send_op(ranks, Op.END)


def follow(model: VisionLanguageModel, ranks: Ranks) -> None:
    """Repeat the calls of rank 0 with this machine's part of the model, until rank 0 calls `release`.

    Raises:
        SvmError: the connection to another machine was lost.
    """
    with wired_memory():
        _repeat_calls(model, ranks)


def _repeat_calls(model: VisionLanguageModel, ranks: Ranks) -> None:
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
            vision = model.config.vision_config
            features = _broadcast(ranks, mx.zeros((c, vision.features_width), mx.float32)) if c and vision else None
            visibility = _receive(ranks, (d,)) if d else None
            runner.prefill(rows, positions.astype(np.int64), features, is_video.astype(np.bool_), visibility)
        else:
            mx.eval(runner.step(a, _receive(ranks, (b,)) if b else None))


def _send_op(ranks: Ranks, op: int = 0, *numbers: int) -> list[int]:
    """Broadcast an opcode with its numbers from rank 0; on the other ranks, called without them, receive it."""
    sent = [int(op), *map(int, numbers)]
    received = np.array(_broadcast(ranks, mx.array(sent + [0] * (_NUMBERS - len(sent)), mx.int32)))
    return [int(number) for number in received]


def _receive(ranks: Ranks, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    return np.array(_broadcast(ranks, mx.zeros(shape, mx.int32)))


def _broadcast(ranks: Ranks, array: mx.array) -> mx.array:
    """Return rank 0's array on every rank; the others pass zeros in its shape."""
    return ranks.sum(array)
