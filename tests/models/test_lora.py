"""Compares adapted layers with the formulas of the papers in NumPy, on plain and quantized weights."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
import pytest
from mlx.utils import tree_flatten

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.lora import (
    DoRALinear,
    LoraConfig,
    LoRALinear,
    adapted_layers,
    attach,
    fuse,
    like,
    remeasure,
)
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from tests.small import small_config, small_model

INPUTS, OUTPUTS, RANK, SCALE = 64, 5, 3, 1.5
Array = npt.NDArray[np.float64]


def make_linear(bits: int | None, bias: bool) -> nn.Linear | nn.QuantizedLinear:
    rng = np.random.default_rng(0)
    linear = nn.Linear(INPUTS, OUTPUTS, bias=bias)
    linear.weight = mx.array(rng.standard_normal((OUTPUTS, INPUTS), np.float32))
    if bias:
        linear.bias = mx.array(rng.standard_normal(OUTPUTS, np.float32))
    return nn.QuantizedLinear.from_linear(linear, 32, bits) if bits else linear


def trained(kind: type[LoRALinear], linear: nn.Linear | nn.QuantizedLinear) -> LoRALinear:
    """Return an adapted layer that has moved from where it began."""
    layer = kind(linear, RANK, SCALE, mx.random.key(1))
    rng = np.random.default_rng(2)
    layer.lora_b = mx.array(rng.standard_normal((RANK, OUTPUTS), np.float32))
    if isinstance(layer, DoRALinear):
        layer.m = layer.m * mx.array(rng.uniform(0.5, 2.0, OUTPUTS).astype(np.float32))
    return layer


def expected(layer: LoRALinear, x: Array) -> Array:
    """The papers' formulas, in double precision: W + scale · (A·B)ᵀ, its rows brought to the lengths m."""
    linear = layer.linear
    weight = linear.weight
    if isinstance(linear, nn.QuantizedLinear):
        weight = mx.dequantize(weight, linear.scales, linear.biases, linear.group_size, linear.bits)
    whole = np.array(weight, np.float64) + SCALE * (np.array(layer.lora_a, np.float64) @ np.array(layer.lora_b)).T
    if isinstance(layer, DoRALinear):
        whole *= (np.array(layer.m) / np.sqrt((whole**2).sum(axis=1)))[:, None]
    out: Array = x @ whole.T + (np.array(linear.bias) if "bias" in linear else 0)
    return out


@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_the_papers_formula(kind: type[LoRALinear], bits: int | None, bias: bool) -> None:
    layer = trained(kind, make_linear(bits, bias))
    x = np.random.default_rng(3).standard_normal((2, 7, INPUTS))
    found = np.array(layer(mx.array(x.astype(np.float32))))
    assert np.allclose(found, expected(layer, x), atol=2e-4)
    assert not np.allclose(found, np.array(layer.linear(mx.array(x.astype(np.float32)))), atol=0.1)


@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
@pytest.mark.parametrize("bits", [None, 4])
def test_at_first_nothing_changes(kind: type[LoRALinear], bits: int | None) -> None:
    linear = make_linear(bits, bias=True)
    x = mx.random.normal((4, INPUTS), key=mx.random.key(4))
    assert np.allclose(kind(linear, RANK, SCALE, mx.random.key(1))(x), linear(x), atol=1e-5)


@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
def test_fused_it_computes_the_same(kind: type[LoRALinear]) -> None:
    layer = trained(kind, make_linear(None, bias=True))
    x = mx.random.normal((4, INPUTS), key=mx.random.key(4))
    fused = layer.fused()
    assert type(fused) is nn.Linear
    assert np.allclose(fused(x), layer(x), atol=1e-4)


@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
def test_fused_a_packed_weight_is_packed_as_before(kind: type[LoRALinear]) -> None:
    layer = trained(kind, make_linear(8, bias=True))
    x = mx.random.normal((4, INPUTS), key=mx.random.key(4))
    fused = layer.fused()
    assert isinstance(fused, nn.QuantizedLinear)
    assert (fused.bits, fused.group_size) == (8, 32)
    # Rounded to 8 bits once more: some thousandths of the largest weight, 64 times.
    assert np.abs(np.array(fused(x) - layer(x))).max() < 0.25
    assert np.abs(np.array(layer.linear(x) - layer(x))).max() > 1


def test_no_gradient_goes_through_the_lengths() -> None:
    """As section 4.3 of DoRA's paper has it: with lengths as constants, m alone does not see the weight's change."""
    layer = trained(DoRALinear, make_linear(None, bias=False))
    x = mx.random.normal((4, INPUTS), key=mx.random.key(4))

    def loss(b: mx.array) -> mx.array:
        layer.lora_b = b
        return layer(x).sum()

    gradient = np.array(mx.grad(loss)(layer.lora_b))
    whole = np.array(layer.linear.weight + layer.delta())
    shares = np.array(layer.m) / np.sqrt((whole**2).sum(axis=1))
    constant = SCALE * (np.array(x) @ np.array(layer.lora_a)).sum(axis=0)[:, None] * shares
    assert np.allclose(gradient, constant, atol=1e-3)


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_lengths_need_no_unpacked_weight(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Neither while training, nor after they were fixed."""
    linear = make_linear(None, bias=True)
    packed = nn.QuantizedLinear.from_linear(linear, 32, 4, mode=mode)
    layer = trained(DoRALinear, packed)
    assert isinstance(layer, DoRALinear)
    mx.eval(layer.arrays())
    x = mx.random.normal((4, INPUTS), key=mx.random.key(4))
    plain = trained(DoRALinear, nn.Linear(INPUTS, OUTPUTS))
    how = {"group_size": 32, "bits": 4, "mode": mode}
    plain.linear.weight = mx.dequantize(packed.weight, packed.scales, packed.get("biases"), **how).astype(mx.float32)
    plain.linear.bias = packed.bias
    plain.measure()
    plain.m = layer.m

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a weight was unpacked")

    with monkeypatch.context() as patch:
        patch.setattr(mx, "dequantize", refuse)
        assert np.allclose(layer(x), plain(x), atol=1e-3)
    layer.fix_lengths()
    monkeypatch.setattr(mx, "dequantize", refuse)
    assert np.allclose(layer(x), plain(x), atol=1e-3)
    with pytest.raises(AssertionError, match="unpacked"):
        layer.fix_lengths()


def test_replaced_weights_are_measured_again() -> None:
    layer = trained(DoRALinear, make_linear(None, bias=False))
    mx.eval(layer.arrays())
    layer.linear.weight = 3 * layer.linear.weight
    x = np.random.default_rng(3).standard_normal((2, INPUTS))
    found = np.array(layer(mx.array(x.astype(np.float32))))
    assert not np.allclose(found, expected(layer, x), atol=0.1)
    remeasure(layer)
    assert np.allclose(layer(mx.array(x.astype(np.float32))), expected(layer, x), atol=2e-4)


def test_a_packed_weight_lets_the_gradient_through() -> None:
    layer = trained(LoRALinear, make_linear(4, bias=False))
    layer.linear.freeze()
    slopes = nn.value_and_grad(layer, lambda x: (layer(x) ** 2).sum())(mx.ones((2, INPUTS)))[1]
    assert slopes.keys() == {"lora_a", "lora_b"} | ({"linear"} & slopes.keys())
    assert all(np.abs(np.array(slopes[name])).max() > 0 for name in ("lora_a", "lora_b"))


@pytest.fixture
def model() -> VisionLanguageModel:
    return small_model(small_config(40))


def test_only_adapters_of_the_named_layers_are_trainable(model: VisionLanguageModel) -> None:
    count = attach(model, LoraConfig(rank=2, targets=("model.layers.1.*.q_proj", "visual.blocks.*.attn.qkv")))
    assert {name for name, _ in adapted_layers(model)} == {
        *(f"visual.blocks.{number}.attn.qkv" for number in range(2)),
        "model.layers.1.self_attn.q_proj",
    }
    assert count == 2 * (16 + 48) * 2 + 2 * (32 + 32)
    assert sum(a.size for _, a in tree_flatten(model.trainable_parameters())) == count


def test_by_default_every_linear_layer_of_the_decoder_is_adapted(model: VisionLanguageModel) -> None:
    attach(model, LoraConfig())
    names = [name for name, _ in adapted_layers(model)]
    assert len(names) == 2 * 7
    assert all(name.startswith("model.layers.") for name in names)


def test_seeds_choose_the_initial_values(model: VisionLanguageModel) -> None:
    firsts = []
    for seed in (0, 0, 1):
        each = small_model(small_config(40))
        attach(each, LoraConfig(), seed)
        firsts.append(np.array(next(adapted_layers(each))[1].lora_a))
    assert np.array_equal(firsts[0], firsts[1])
    assert not np.array_equal(firsts[0], firsts[2])


def test_fusing_leaves_no_adapter_and_every_name(model: VisionLanguageModel) -> None:
    names = [name for name, _ in model.named_arrays()]
    attach(model, LoraConfig(kind="dora"))
    fuse(model)
    assert not list(adapted_layers(model))
    assert sorted(name for name, _ in model.named_arrays()) == sorted(names)


def test_a_pattern_that_matches_nothing_is_refused(model: VisionLanguageModel) -> None:
    with pytest.raises(SvmError, match=r"lora.targets: 'model.layers.\*.nothing' matches no linear layer"):
        attach(model, LoraConfig(targets=("model.layers.*.nothing",)))


@pytest.mark.parametrize("values", [{"rank": 0}, {"scale": 0}, {"targets": []}, {"kind": "adalora"}])
def test_settings_that_adapt_nothing_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(SvmError, match=r"lora|kind"):
        LoraConfig.from_dict(values)


def test_a_layer_like_another_keeps_its_bias_and_dtype() -> None:
    linear = make_linear(None, bias=True)
    linear.set_dtype(mx.bfloat16)
    made = like(linear, mx.ones((OUTPUTS, INPUTS)))
    assert made.weight.dtype == mx.bfloat16
    assert np.array_equal(np.array(made.bias.astype(mx.float32)), np.array(linear.bias.astype(mx.float32)))
