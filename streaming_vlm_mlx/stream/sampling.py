"""Choice of the next token, in NumPy, so that a seed gives the same text on every device."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import SamplingConfig

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]


class Sampler(Protocol):
    """Chooses the next token of a second."""

    def sample(self, logits: Scores, seen: Rows, step: int) -> int:
        """Return the next token's row.

        Args:
            logits: of all rows, [vocab].
            seen: rows of the tokens so far, for the repetition penalty.
            step: the token's number within its second.
        """
        ...


class TokenSampler:
    """Samples greedily or at random, after Hugging Face's processors: penalty, silence, temperature, top-p."""

    def __init__(self, config: SamplingConfig, silence_row: int) -> None:
        """Seed the random draws with `config.seed`; `silence_row` is the row of the `` ...`` token."""
        self.config = config
        self._silence_row = silence_row
        self._random = np.random.default_rng(config.seed)

    def sample(self, logits: Scores, seen: Rows, step: int) -> int:
        """Return the next token's row; see `Sampler.sample`."""
        scores = penalise(logits, seen, self.config.repetition_penalty)
        threshold = (self.config.silence_threshold or 0.0) + self.config.silence_step * step
        # No probability is 0 or less, so such a threshold rules out nothing; softmax over all rows takes a while.
        if self.config.silence_threshold is not None and threshold > 0:
            scores = hold_silence(scores, self._silence_row, threshold)
        if self.config.temperature == 0:
            return int(scores.argmax())
        scores = keep_top_p(scores / np.float32(self.config.temperature), self.config.top_p)
        return int(self._random.choice(scores.size, p=_softmax(scores)))


def penalise(scores: Scores, seen: Rows, penalty: float) -> Scores:
    """Divide positive and multiply negative scores of the rows `seen` by `penalty` (CTRL, arXiv 1909.05858)."""
    if penalty == 1.0:
        return scores
    out = scores.copy()
    old = scores[seen]
    out[seen] = np.where(old < 0, old * np.float32(penalty), old / np.float32(penalty))
    return out


def hold_silence(scores: Scores, row: int, threshold: float) -> Scores:
    """Rule out `row` unless its probability exceeds `threshold` (LiveCC's rule for its `` ...`` token)."""
    if _softmax(scores)[row] > threshold:
        return scores
    out = scores.copy()
    out[row] = -np.inf
    return out


def keep_top_p(scores: Scores, top_p: float) -> Scores:
    """Rule out all but the smallest set of rows whose probability reaches `top_p`; the best row always stays."""
    if top_p >= 1.0:
        return scores
    order = np.argsort(scores, kind="stable")
    cumulative = np.cumsum(_softmax(scores)[order])
    out = scores.copy()
    out[order[:-1][cumulative[:-1] <= 1 - top_p]] = -np.inf
    return out


def _softmax(scores: Scores) -> npt.NDArray[np.float64]:
    exp: npt.NDArray[np.float64] = np.exp(scores.astype(np.float64) - float(scores.max()))
    return exp / float(exp.sum())
