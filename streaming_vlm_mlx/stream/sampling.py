"""Choice of the next token, where the logits are: in NumPy on a CPU, in MLX on a GPU.

Both follow the same rules with the same random numbers. A seed gives the same text on every device, but for draws that
rounding decides.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import SamplingConfig

Rows = npt.NDArray[np.int32]
Array = npt.NDArray[np.float32]
Scores = TypeVar("Scores", mx.array, Array)
# A token's row. An array may still be under way; `read_row` waits for it.
Choice = int | mx.array

# Top-p sorts the best rows alone where they are enough.
_BEST = 2048
_BLOCK = 512
_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


class Sampler(Protocol):
    """Chooses the next token of a second."""

    def sample(self, logits: mx.array, seen: Rows, step: int) -> Choice:
        """Return the next token's row.

        Args:
            logits: of all rows, float32 [vocab]; they may not be evaluated yet.
            seen: rows of the tokens so far, for the repetition penalty.
            step: the token's number within its second.
        """
        ...


class TokenSampler:
    """Samples greedily or at random, after Hugging Face's processors: penalty, silence, temperature, top-p."""

    def __init__(self, config: SamplingConfig, silence_row: int, on_host: bool | None = None) -> None:
        """Seed the random draws with `config.seed`.

        Args:
            config: the settings.
            silence_row: the row of the `` ...`` token.
            on_host: whether to choose in NumPy, which waits for the logits; None for the best on this device.
        """
        self.config = config
        self._silence_row = silence_row
        self._random = np.random.default_rng(config.seed)
        # NumPy reads the logits of a CPU where they are, and MLX's kernels take 15 times as long for `exp` there.
        self._on_host = mx.default_device().type == mx.DeviceType.cpu if on_host is None else on_host

    def sample(self, logits: mx.array, seen: Rows, step: int) -> Choice:
        """Return the next token's row; see `Sampler.sample`."""
        if self._on_host:
            return int(self._choose(to_host(logits), seen, step))
        chosen: mx.array = self._choose(logits, mx.array(seen), step)
        return chosen

    def _choose(self, scores: Any, seen: Any, step: int) -> Any:
        config = self.config
        scores = penalise(scores, seen, config.repetition_penalty)
        threshold = (config.silence_threshold or 0.0) + config.silence_step * step
        # No probability is 0 or less, so such a threshold rules out nothing; softmax over all rows takes a while.
        if config.silence_threshold is not None and threshold > 0:
            scores = hold_silence(scores, self._silence_row, threshold)
        if config.temperature == 0:
            return scores.argmax()
        return draw(keep_top_p(scores / config.temperature, config.top_p), self._random.random())


def to_host(array: mx.array) -> npt.NDArray[Any]:
    """Wait for `array` and return it in NumPy, without a copy on a CPU; no decoded value gets to the host otherwise."""
    return np.array(array, copy=False)


def read_row(choice: Choice) -> int:
    """Return the row of a chosen token, once it is computed."""
    return choice if isinstance(choice, int) else int(to_host(choice))


def rule_out(logits: mx.array, rows: Sequence[int]) -> mx.array:
    """Return `logits` [vocab] with -inf at `rows`; where these are all rows, `logits` as it is."""
    if not rows or len(rows) >= logits.size:
        return logits
    out = mx.array(logits)
    out[mx.array(list(rows))] = -mx.inf
    return out


def penalise(scores: Scores, seen: Any, penalty: float) -> Scores:
    """Divide positive and multiply negative scores of the rows `seen` by `penalty` (CTRL, arXiv 1909.05858)."""
    if penalty == 1.0:
        return scores
    xp = _module(scores)
    old: Scores = scores[seen]
    out: Scores = xp.array(scores)
    out[seen] = xp.where(old < 0, old * penalty, old / penalty)
    return out


def hold_silence(scores: Scores, row: int, threshold: float) -> Scores:
    """Rule out `row` unless its probability exceeds `threshold` (LiveCC's rule for its `` ...`` token)."""
    xp, powers = _module(scores), _exp(scores - scores.max())
    out: Scores = xp.array(scores)
    out[row] = xp.where(powers[row] > threshold * powers.sum(), scores[row], -np.inf)
    return out


def keep_top_p(scores: Scores, top_p: float) -> Scores:
    """Return the rows' probabilities up to a factor: 0 outside the smallest set of rows that reaches `top_p`.

    The best row always stays. Of rows with one score the first are ruled out.
    """
    powers: Scores = _exp(scores - scores.max())
    if top_p >= 1.0:
        return powers
    if isinstance(powers, np.ndarray):
        return _keep_top_p(powers, scores, top_p)
    # A partition on a GPU sorts all rows too.
    order = mx.argsort(scores)[::-1]
    falling = powers[order]
    kept = mx.cumsum(falling) - falling < top_p * falling.sum()
    return mx.put_along_axis(powers, order, mx.where(kept, falling, 0.0), axis=0)


def _keep_top_p(powers: Array, scores: Array, top_p: float) -> Array:
    falling, count = _count_top_p(powers, top_p)
    last = falling[count - 1]
    tied = np.flatnonzero(powers == last)
    # Scores may differ where their exponentials do not.
    tied = tied[np.argsort(scores[tied], kind="stable")]
    extra = len(tied) + np.count_nonzero(falling > last) - count
    powers *= powers >= last
    powers[tied[:extra]] = 0
    return powers


def _count_top_p(powers: Array, top_p: float) -> tuple[Array, int]:
    """Return falling powers, all or the best of them, and how many of them stay."""
    # A row stays while the better ones have less than this; `_passed` finds where they have more.
    share = np.nextafter(float(top_p * powers.sum()), 0)
    # No power is above 1.
    if powers.size > _BEST > share:
        falling = _falling(np.partition(powers, -_BEST)[-_BEST:])
        if falling.sum() > share:
            return falling, _passed(falling, share) + 1
    falling = _falling(powers)
    return falling, _passed(falling, share) + 1


def draw(powers: Scores, point: float) -> Any:
    """Return the row at `point`, from 0 up to 1, of `powers` laid end to end."""
    if isinstance(powers, np.ndarray):
        return _passed(powers, point * powers.sum(dtype=np.float64))
    ends = mx.cumsum(powers)
    # Sums that are computed in parallel may fall by a rounding error, and no row that is ruled out may gain by it.
    passed = (ends > min(point, _BELOW_ONE) * mx.where(powers > 0, ends, 0).max()) & (powers > 0)
    return passed.astype(mx.int32).argmax()


def _passed(powers: Array, share: float) -> int:
    """Return the place at which the running sum of `powers` exceeds `share`: the last that is not 0 if none does."""
    # Sums of blocks first: a running sum over all words takes 1 ms.
    ends = np.cumsum(np.add.reduceat(powers, np.arange(0, powers.size, _BLOCK)), dtype=np.float64)
    block = min(int(np.searchsorted(ends, share, side="right")), int(np.searchsorted(ends, ends[-1])))
    part = powers[block * _BLOCK : (block + 1) * _BLOCK]
    before = ends[block - 1] if block else 0.0
    passed = int(np.searchsorted(before + np.cumsum(part, dtype=np.float64), share, side="right"))
    return block * _BLOCK + min(passed, int(np.flatnonzero(part)[-1]))


def _falling(powers: Array) -> Array:
    values = -powers
    values.sort()
    return np.negative(values, out=values)


def _exp(values: Scores) -> Scores:
    """Return the exponentials of `values`; in NumPy in its place, because fresh memory costs more than they do."""
    return mx.exp(values) if isinstance(values, mx.array) else np.exp(values, out=values)


def _module(scores: mx.array | Array) -> Any:
    return mx if isinstance(scores, mx.array) else np
