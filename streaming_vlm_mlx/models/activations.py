"""Activation functions with a fast exponential for the CPU, and the wrapper type for layers in training."""

import math
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

Wrap = Callable[[nn.Module], Callable[..., Any]]


def identity(module: nn.Module) -> Callable[..., Any]:
    """Return `module` unchanged; `mlx.nn.utils.checkpoint` instead saves memory and costs a second forward pass."""
    call: Callable[..., Any] = module
    return call


_LOG2_E = 1.0 / math.log(2.0)
# Added to a float32 of moderate size, it leaves the nearest whole number in the lowest bits.
_ROUNDING = 1.5 * 2.0**23
_LOWEST, _HIGHEST = -126.0, 126.0
# Coefficients of 2^f for f in [-0.5, 0.5], the constant first, fitted at Chebyshev nodes; relative error 2e-8.
_POWER_OF_TWO = (1.0, 0.6931472067, 0.2402265121, 0.0555032721, 0.0096180256, 0.0013400432, 0.0001546973)

_GELU_SCALE, _GELU_CUBE = math.sqrt(8.0 / math.pi), 0.044715


def uses_products(x: mx.array) -> bool:
    """Return whether the exponential of `x` is computed from products, as for float32 on a CPU."""
    return bool(x.dtype == mx.float32 and mx.default_device().type == mx.DeviceType.cpu)


def exp(x: mx.array) -> mx.array:
    """Return e^x of float32 `x`, computed from products and clipped to about e^±87."""
    return cast(mx.array, _exp(x))


@mx.custom_function
def _exp(x: mx.array) -> mx.array:
    y = mx.clip(x * _LOG2_E, _LOWEST, _HIGHEST)
    shifted = y + _ROUNDING
    f = y - (shifted - _ROUNDING)
    *rest, last = _POWER_OF_TWO
    power = last * f + rest.pop()
    for coefficient in reversed(rest):
        power = power * f + coefficient
    exponent = mx.view(shifted, mx.int32) * (1 << 23)
    return mx.view(mx.view(power, mx.int32) + exponent, mx.float32)


@_exp.vjp
def _exp_vjp(_: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output


def silu(x: mx.array) -> mx.array:
    """Return x · sigmoid(x), elementwise."""
    if not uses_products(x):
        y: mx.array = nn.silu(x)
        return y
    return x / (1.0 + exp(-x))


def quick_gelu(x: mx.array) -> mx.array:
    """Return x · sigmoid(1.702 x), elementwise: CLIP's approximation of GELU."""
    if not uses_products(x):
        return x * mx.sigmoid(1.702 * x)
    return x / (1.0 + exp(-1.702 * x))


def gelu_tanh(x: mx.array) -> mx.array:
    """Return the approximation of GELU by a tanh, elementwise: x · sigmoid(√(8/π) · (x + 0.044715 x³))."""
    if not uses_products(x):
        y: mx.array = nn.gelu_approx(x)
        return y
    return x / (1.0 + exp(-_GELU_SCALE * x * (1.0 + _GELU_CUBE * mx.square(x))))
