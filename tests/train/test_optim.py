from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.train.config import OptimizerConfig
from streaming_vlm_mlx.train.optim import freeze, make_optimizer
from tests.small import small_config, small_model

CONFIG = OptimizerConfig(learning_rate=0.02, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)


@pytest.fixture
def model() -> VisionLanguageModel:
    return small_model(small_config(300))


def moving(model: nn.Module) -> set[str]:
    return {name for name, _ in tree_flatten(model.trainable_parameters())}


@pytest.mark.parametrize("sizes", [(3, 4), (700, 301)], ids=["small", "in parts"])
def test_updates_are_those_of_pytorch(sizes: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(1)
    layer = nn.Linear(*sizes)
    shared = layer.weight
    before = np.array(shared)
    theirs = [torch.nn.Parameter(torch.tensor(np.array(array))) for array in (layer.weight, layer.bias)]
    groups = [{"params": theirs[:1], "weight_decay": CONFIG.weight_decay}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, CONFIG.learning_rate, CONFIG.betas, CONFIG.eps)
    optimizer = make_optimizer(CONFIG)
    for _ in range(5):
        grads: Any = [draw.standard_normal(array.shape).astype(np.float32) for array in (layer.weight, layer.bias)]
        for parameter, grad in zip(theirs, grads, strict=True):
            parameter.grad = torch.tensor(grad)
        reference.step()
        optimizer.update(layer, {"weight": mx.array(grads[0]), "bias": mx.array(grads[1])})
    for ours, their in zip((layer.weight, layer.bias), theirs, strict=True):
        assert np.allclose(np.array(ours), their.detach().numpy(), atol=1e-6)
    assert np.array_equal(np.array(shared), before)


def test_only_matrices_decay(model: VisionLanguageModel) -> None:
    before = dict(model.named_arrays())
    still = {name: mx.zeros_like(array) for name, array in before.items()}
    optimizer = make_optimizer(CONFIG)
    optimizer.update(model, nn.utils.tree_unflatten(list(still.items())))
    for name, array in model.named_arrays():
        shrunk = before[name] * (1 - CONFIG.learning_rate * CONFIG.weight_decay) if array.ndim > 1 else before[name]
        assert mx.allclose(array, shrunk), name


def test_frozen_names_stay(model: VisionLanguageModel) -> None:
    names = {name for name, _ in model.named_arrays()}
    expected = {name for name in names if not name.startswith("visual.") and not name.endswith(".bias")}
    sizes = dict(model.named_arrays())
    assert freeze(model, ["visual.*", "*.bias"]) == sum(sizes[name].size for name in names - expected)
    assert moving(model) == expected
    assert expected


def test_an_array_that_lies_deep_can_be_frozen_alone(model: VisionLanguageModel) -> None:
    before = moving(model)
    freeze(model, ["visual.patch_embed.proj.weight"])
    assert before - moving(model) == {"visual.patch_embed.proj.weight"}


def test_nothing_is_frozen_by_no_pattern(model: VisionLanguageModel) -> None:
    before = moving(model)
    assert freeze(model, []) == 0
    assert moving(model) == before


def test_a_pattern_that_matches_nothing_is_refused(model: VisionLanguageModel) -> None:
    with pytest.raises(SvmError, match=r"freeze: 'vision.\*' matches no parameter"):
        freeze(model, ["visual.*", "vision.*"])
