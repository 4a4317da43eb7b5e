from collections.abc import Mapping

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.train.config import OptimizerConfig
from streaming_vlm_mlx.train.gradients import Compute
from streaming_vlm_mlx.train.loss import LossWeights, TrainModel
from streaming_vlm_mlx.train.microbatch import make_microbatches
from streaming_vlm_mlx.train.optim import make_optimizer
from streaming_vlm_mlx.train.trainer import UpdateResult, update
from streaming_vlm_mlx.train.workers import WorkerPool
from tests.small import small_config, small_model
from tests.train.batching import ROWS, VIDEO, make_batch, make_sample


def moved(fraction: float, **values: float) -> tuple[UpdateResult, Mapping[str, mx.array]]:
    """Make one update of a fresh model; return what it says, and how far each array went."""
    config = OptimizerConfig(**({"learning_rate": 0.01, "weight_decay": 0.0} | values))  # type: ignore[arg-type]
    train_model = TrainModel(small_model(small_config(ROWS)))
    before = dict(train_model.model.named_arrays())
    microbatches = list(
        make_microbatches(make_batch([[make_sample(2, (1, 4, 6), 1)]]), {}, FullVocabulary(ROWS), VIDEO, 1)
    )
    done = update(
        train_model,
        make_optimizer(config),
        WorkerPool(train_model, Compute(), []),
        microbatches,
        LossWeights(),
        config,
        fraction,
    )
    return done, {name: array - before[name] for name, array in train_model.model.named_arrays()}


def test_the_rate_is_the_schedules_share() -> None:
    _, whole = moved(1.0)
    _, part = moved(0.25)
    for name, step in whole.items():
        assert mx.allclose(part[name], step * 0.25, atol=1e-6), name
    assert max(mx.abs(step).max().item() for step in whole.values()) == pytest.approx(0.01, rel=1e-2)


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    train_model = TrainModel(small_model(small_config(ROWS)))
    train_model.model.model.norm.weight = mx.full(train_model.model.model.norm.weight.shape, mx.inf)
    before = dict(train_model.model.named_arrays())
    microbatches = list(
        make_microbatches(make_batch([[make_sample(2, (1, 4, 6), 1)]]), {}, FullVocabulary(ROWS), VIDEO, 1)
    )
    config = OptimizerConfig()
    with pytest.raises(SvmError, match="not finite: resume from the last checkpoint with --resume"):
        update(
            train_model,
            make_optimizer(config),
            WorkerPool(train_model, Compute(), []),
            microbatches,
            LossWeights(),
            config,
            1.0,
        )
    assert all(mx.array_equal(array, before[name]) for name, array in train_model.model.named_arrays())


def test_a_long_gradient_is_cut() -> None:
    """Adam does not see a gradient's length unless its `eps` is large."""
    long, _ = moved(1.0, max_grad_norm=1e9, eps=1e3)
    cut, steps = moved(1.0, max_grad_norm=0.5, eps=1e3)
    assert cut.grad_norm == pytest.approx(long.grad_norm)
    assert long.grad_norm > 1.0
    length = np.sqrt(sum(float(mx.square(step).sum().item()) for step in steps.values()))
    # A first step is rate × gradient / (|gradient| + eps), here about rate × gradient / eps.
    assert length == pytest.approx(0.01 * 0.5 / 1e3, rel=0.05)
