"""The vision towers of Qwen2.5-VL (arXiv 2502.13923) and Qwen2-VL (arXiv 2409.12191).

They map patches to one vector a merged patch. Compared with Qwen2.5-VL's, Qwen2-VL's tower has LayerNorm instead of
RMSNorm, a plain feed-forward part instead of a gated one, and no windows.
"""

from dataclasses import dataclass
from functools import lru_cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import VisionConfig
from streaming_vlm_mlx.models.activations import Wrap, identity, quick_gelu, silu
from streaming_vlm_mlx.models.attention import attention
from streaming_vlm_mlx.models.rope import rotate, vision_angles

NORM_EPS = 1e-6


@dataclass(frozen=True)
class WindowPlan:
    """The order of the patches of one temporal step in which window attention needs neither a mask nor a gather.

    Attributes:
        order: merged patches in window order, windows of one size next to each other, int [units].
        runs: (windows, patches a window) of each run of equal windows; the products add up to the number of patches.
        rows: row of each patch in window order, int [patches].
        columns: column of each patch in window order, int [patches].
    """

    order: npt.NDArray[np.int64]
    runs: tuple[tuple[int, int], ...]
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]


def plan_windows(height: int, width: int, merge: int, window: int) -> WindowPlan:
    """Plan the windows of a grid of `height` × `width` patches.

    Args:
        height: patches, a multiple of `merge`.
        width: patches, a multiple of `merge`.
        merge: patches merged along each axis.
        window: merged patches along the side of a window.
    """
    rows, columns = np.divmod(np.arange(height // merge * (width // merge)), width // merge)
    corner = rows // window * (width // merge) + columns // window
    _, name, size = np.unique(corner, return_inverse=True, return_counts=True)
    order = np.lexsort((np.arange(name.size), name, -size[name]))
    sizes, counts = np.unique(np.sort(size)[::-1], return_counts=True)
    runs = tuple((int(n), int(s) * merge * merge) for s, n in sorted(zip(sizes, counts, strict=True), reverse=True))
    inner_row, inner_column = np.divmod(np.arange(merge * merge), merge)
    return WindowPlan(
        order=order,
        runs=runs,
        rows=(rows[order, None] * merge + inner_row).ravel(),
        columns=(columns[order, None] * merge + inner_column).ravel(),
    )


class PatchEmbed(nn.Module):
    """The strided convolution over patches, computed as a product with each flattened patch."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        shape = (config.in_channels, config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = {"weight": mx.random.normal((config.hidden_size, *shape), scale=0.02)}

    def __call__(self, patches: mx.array) -> mx.array:
        """Map [..., channels × frames × patch × patch] to [..., hidden_size]."""
        weight = self.proj["weight"]
        return patches.astype(weight.dtype) @ weight.reshape(weight.shape[0], -1).T


class VisionAttention(nn.Module):
    """Attention within windows, or within a whole temporal step."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def __call__(self, x: mx.array, angles: tuple[mx.array, mx.array], runs: tuple[tuple[int, int], ...]) -> mx.array:
        """Attend within the windows of each run; `x` is [steps, patches, hidden_size]."""
        steps, patches, width = x.shape
        qkv = self.qkv(x).reshape(steps, patches, 3, self.num_heads, -1).transpose(2, 0, 3, 1, 4)
        q, k, v = rotate(qkv[0], *angles), rotate(qkv[1], *angles), qkv[2]
        out, at = [], 0
        for windows, size in runs:
            part = slice(at, at + windows * size)
            out.append(_attention(q[:, :, part], k[:, :, part], v[:, :, part], windows))
            at = part.stop
        joined = out[0] if len(out) == 1 else mx.concatenate(out, axis=2)
        return self.proj(joined.transpose(0, 2, 1, 3).reshape(steps, patches, width))


def _attention(q: mx.array, k: mx.array, v: mx.array, windows: int) -> mx.array:
    """Attend within each of `windows` equal parts of [steps, heads, patches, head_dim]."""
    shape = q.shape
    split = (shape[0], shape[1] * windows, shape[2] // windows, shape[3])
    q, k, v = (a.reshape(split) for a in (q, k, v))
    return attention(q, k, v, scale=shape[3] ** -0.5).reshape(shape)


class VisionMLP(nn.Module):
    """The gated feed-forward part of a Qwen2.5-VL block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., hidden_size] to the same shape."""
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class PlainVisionMLP(nn.Module):
    """The feed-forward part of a Qwen2-VL block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        """Map [..., hidden_size] to the same shape."""
        return self.fc2(quick_gelu(self.fc1(x)))


def make_norm(config: VisionConfig) -> nn.Module:
    """Return a norm over `hidden_size` of the kind that the tower uses."""
    kind = nn.LayerNorm if config.architecture == "qwen2_vl" else nn.RMSNorm
    return kind(config.hidden_size, eps=NORM_EPS)


class VisionBlock(nn.Module):
    """Attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = make_norm(config), make_norm(config)
        self.attn = VisionAttention(config)
        self.mlp = PlainVisionMLP(config) if config.architecture == "qwen2_vl" else VisionMLP(config)

    def __call__(self, x: mx.array, angles: tuple[mx.array, mx.array], runs: tuple[tuple[int, int], ...]) -> mx.array:
        """Map [steps, patches, hidden_size] to the same shape."""
        x = x + self.attn(self.norm1(x), angles, runs)
        return x + self.mlp(self.norm2(x))


class PatchMerger(nn.Module):
    """Merges each square of patches into one vector of the decoder's width."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        joined = config.hidden_size * config.spatial_merge_size**2
        self.ln_q = make_norm(config)
        self.mlp = [nn.Linear(joined, joined), nn.GELU(), nn.Linear(joined, config.out_hidden_size)]
        self._joined = joined

    def __call__(self, x: mx.array) -> mx.array:
        """Map [steps, patches, hidden_size] to [steps, units, out_hidden_size]."""
        x = self.ln_q(x).reshape(x.shape[0], -1, self._joined)
        for layer in self.mlp:
            x = layer(x)
        return x


class VisionTower(nn.Module):
    """Patch embedding, blocks with window or full attention, and merger, for both families."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.blocks = [VisionBlock(config) for _ in range(config.depth)]
        self.merger = PatchMerger(config)
        self._plan = lru_cache(maxsize=8)(self._make_plan)

    def __call__(self, pixel_values: mx.array, grid_thw: tuple[int, int, int], wrap: Wrap = identity) -> mx.array:
        """Return the features of one video (or image): [t × h × w / merge², out_hidden_size].

        Args:
            pixel_values: [t × h × w, channels × frames × patch × patch], in the processor's order.
            grid_thw: temporal steps, rows and columns, in patches. Steps do not attend to each other, so videos of one
                size can be passed as one.
            wrap: called with each block; returns what is called in its place.
        """
        x, _ = self.hidden_states(pixel_values, grid_thw, wrap)
        plan, _ = self._plan(*grid_thw[1:])
        return self.merger(x)[:, mx.array(np.argsort(plan.order))].reshape(-1, self.config.out_hidden_size)

    def hidden_states(
        self, pixel_values: mx.array, grid_thw: tuple[int, int, int], wrap: Wrap = identity
    ) -> tuple[mx.array, WindowPlan]:
        """Return the output of the last block, [t, h × w, hidden_size], in window order, and the plan of that order."""
        steps, height, width = grid_thw
        plan, angles = self._plan(height, width)
        unit = self.config.spatial_merge_size**2
        patches = pixel_values.reshape(steps, height * width // unit, unit, -1)[:, mx.array(plan.order)]
        x = self.patch_embed(patches.reshape(steps, height * width, -1))
        whole = ((1, height * width),)
        for number, block in enumerate(self.blocks):
            x = wrap(block)(x, angles, whole if self._sees_all(number) else plan.runs)
        return x, plan

    def _sees_all(self, number: int) -> bool:
        """Return whether block `number` attends to the whole frame."""
        return self.config.architecture == "qwen2_vl" or number in self.config.fullatt_block_indexes

    def _make_plan(self, height: int, width: int) -> tuple[WindowPlan, tuple[mx.array, mx.array]]:
        c = self.config
        window = c.window_size // c.patch_size // c.spatial_merge_size
        if c.architecture == "qwen2_vl":
            window = max(height, width)
        plan = plan_windows(height, width, c.spatial_merge_size, window)
        angles = vision_angles(plan.rows, plan.columns, c.hidden_size // c.num_heads)
        mx.eval(*angles)
        return plan, angles
