"""Activation functions, fast on a CPU too, and the wrapper type for layers in training.

MLX's CPU kernels take 10 to 14 ns for an exponential, NumPy's less than 1. On a CPU, exponentials of many float32
numbers are therefore computed by NumPy, in the memory of an evaluated array.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float32]
Wrap = Callable[[nn.Module], Callable[..., Any]]


def identity(module: nn.Module) -> Callable[..., Any]:
    """Return `module` unchanged; `mlx.nn.utils.checkpoint` instead saves memory and costs a second forward pass."""
    call: Callable[..., Any] = module
    return call


_GELU_SCALE, _GELU_CUBE = math.sqrt(8.0 / math.pi), 0.044715
# For fewer numbers, waiting for the array takes longer than MLX's kernel.
_FEW = 1 << 14
# As many numbers stay in a core's cache between the passes over them.
BLOCK = 1 << 16


def uses_numpy(x: mx.array) -> bool:
    """Return whether exponentials of an array like `x` are NumPy's: of float32 on a CPU."""
    return bool(x.dtype == mx.float32 and mx.default_device().type == mx.DeviceType.cpu)


def evaluate_in_place(x: mx.array) -> tuple[mx.array, Numbers]:
    """Evaluate `x` row by row in memory; return it and a view of that memory.

    What is written to the view changes the array, so nothing else may hold `x`.
    """
    x = mx.contiguous(x)
    return x, _view(x)


def _view(x: mx.array) -> Numbers:
    """Return the numbers of `x`, which is evaluated, to read."""
    mx.eval(x)
    return np.array(x, copy=False)


def _blocks(values: Numbers) -> Iterator[Numbers]:
    return (values[start : start + BLOCK] for start in range(0, values.size, BLOCK))


def _sigmoid(x: mx.array) -> mx.array:
    return cast(mx.array, _many_sigmoids(x)) if uses_numpy(x) and x.size >= _FEW else mx.sigmoid(x)


@mx.custom_function
def _many_sigmoids(x: mx.array) -> mx.array:
    out, values = evaluate_in_place(-x)
    with np.errstate(over="ignore"):
        for block in _blocks(values.reshape(-1)):
            np.exp(block, out=block)
            block += 1.0
            np.reciprocal(block, out=block)
    return out


@_many_sigmoids.vjp
def _many_sigmoids_vjp(_: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * (output - mx.square(output))


def silu(x: mx.array) -> mx.array:
    """Return x · sigmoid(x), elementwise."""
    return x * _sigmoid(x) if uses_numpy(x) else nn.silu(x)


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """Return silu(gate) · up, elementwise (arXiv 2002.05202)."""
    if uses_numpy(gate) and gate.size >= _FEW:
        return cast(mx.array, _many_swiglus(gate, up))
    return silu(gate) * up


@mx.custom_function
def _many_swiglus(gate: mx.array, up: mx.array) -> mx.array:
    out, values = evaluate_in_place(-gate)
    parts = (a.reshape(-1) for a in (values, _view(gate), _view(up)))
    with np.errstate(over="ignore"):
        for block, gates, ups in zip(*map(_blocks, parts), strict=True):
            np.exp(block, out=block)
            block += 1.0
            np.divide(gates, block, out=block)
            block *= ups
    return out


@_many_swiglus.vjp
def _many_swiglus_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    gate, up = primals
    sigmoid = _sigmoid(gate)
    weighted = gate * sigmoid
    return cotangent * up * (sigmoid + weighted - weighted * sigmoid), cotangent * weighted


def quick_gelu(x: mx.array) -> mx.array:
    """Return x · sigmoid(1.702 x), elementwise: CLIP's approximation of GELU."""
    return x * _sigmoid(1.702 * x)


def gelu_tanh(x: mx.array) -> mx.array:
    """Return the approximation of GELU by a tanh, elementwise: x · sigmoid(√(8/π) · (x + 0.044715 x³))."""
    return x * _sigmoid(_GELU_SCALE * x * (1.0 + _GELU_CUBE * mx.square(x))) if uses_numpy(x) else nn.gelu_approx(x)


# The error function to 1.5e-7, by the exponential (Abramowitz and Stegun, 7.1.26), for half of its complement.
_ERF_SCALE = 0.3275911 * math.sqrt(0.5)
_ERF = (0.5307027145, -0.7265760135, 0.7107068705, -0.142248368, 0.127414796)


def gelu(x: mx.array) -> mx.array:
    """Return GELU, elementwise: x · Φ(x), where Φ is the distribution function of a normal variable."""
    if uses_numpy(x) and x.size >= _FEW:
        return cast(tuple[mx.array, mx.array], _many_gelus(x))[0]
    y: mx.array = nn.gelu(x)
    return y


@mx.custom_function
def _many_gelus(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return GELU and its slope."""
    out, values = evaluate_in_place(mx.zeros(x.shape))
    slopes, slope_values = evaluate_in_place(mx.zeros(x.shape))
    flat = (array.reshape(-1) for array in (_view(x), values, slope_values))
    for blocks in zip(*map(_blocks, flat), strict=True):
        _gelu_block(*blocks)
    return out, slopes


@_many_gelus.vjp
def _many_gelus_vjp(_: mx.array, cotangents: tuple[mx.array, mx.array], outputs: tuple[mx.array, mx.array]) -> mx.array:
    return cotangents[0] * outputs[1]


def _gelu_block(x: Numbers, out: Numbers, slope: Numbers) -> None:
    """Write GELU of `x` to `out` and its slope Φ(x) + x φ(x) to `slope`."""
    t = np.abs(x)
    t *= _ERF_SCALE
    t += 1.0
    np.reciprocal(t, out=t)
    density = np.square(x)
    density *= -0.5
    np.exp(density, out=density)
    # What lies beyond |x|: 1 - Φ for a positive x, Φ for a negative one.
    tail = t * np.float32(_ERF[0])
    for coefficient in _ERF[1:]:
        tail += coefficient
        tail *= t
    tail *= density
    np.subtract(1.0, tail, out=slope)
    np.copyto(slope, tail, where=x < 0)
    np.multiply(x, slope, out=out)
    density *= x
    density *= 1 / math.sqrt(2 * math.pi)
    slope += density
