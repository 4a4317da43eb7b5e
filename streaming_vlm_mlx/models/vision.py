"""The parts of a vision tower that the families share: patches, windows, attention, blocks and their order.

A tower maps patches to features, one row a merged patch. A family's module adds its feed-forward part and its mergers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import VisionConfig
from streaming_vlm_mlx.models.activations import Wrap, gelu, identity
from streaming_vlm_mlx.models.attention import attention
from streaming_vlm_mlx.models.rope import rotate, vision_angles

NORM_EPS = 1e-6

Angles = tuple[mx.array, mx.array]
Runs = tuple[tuple[int, int], ...]


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
    runs: Runs
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

    def __init__(self, config: VisionConfig, bias: bool = False) -> None:
        super().__init__()
        shape = (config.in_channels, config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = {"weight": mx.random.normal((config.hidden_size, *shape), scale=0.02)}
        if bias:
            self.proj["bias"] = mx.zeros((config.hidden_size,))

    def __call__(self, patches: mx.array) -> mx.array:
        """Map [..., channels × frames × patch × patch] to [..., hidden_size]."""
        weight = self.proj["weight"]
        x = patches.astype(weight.dtype) @ weight.reshape(weight.shape[0], -1).T
        return x + self.proj["bias"] if "bias" in self.proj else x


class VisionAttention(nn.Module):
    """Attention within windows, or within a whole temporal step."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def __call__(self, x: mx.array, angles: Angles, runs: Runs) -> mx.array:
        """Attend within the windows of each run; `x` is [steps, patches, hidden_size]."""
        steps, patches, width = x.shape
        # The gradient of a split is one concatenation, that of slices a sum of padded arrays.
        heads = (part.reshape(steps, patches, self.num_heads, -1) for part in mx.split(self.qkv(x), 3, axis=-1))
        q, k, v = (part.transpose(0, 2, 1, 3) for part in heads)
        ends = np.cumsum([windows * size for windows, size in runs])[:-1].tolist()
        qs, ks, vs = (mx.split(part, ends, axis=2) for part in (rotate(q, *angles), rotate(k, *angles), v))
        out = [_attention(q, k, v, windows) for q, k, v, (windows, _) in zip(qs, ks, vs, runs, strict=True)]
        joined = out[0] if len(out) == 1 else mx.concatenate(out, axis=2)
        return self.proj(joined.transpose(0, 2, 1, 3).reshape(steps, patches, width))


def _attention(q: mx.array, k: mx.array, v: mx.array, windows: int) -> mx.array:
    """Attend within each of `windows` equal parts of [steps, heads, patches, head_dim]."""
    shape = q.shape
    split = (shape[0], shape[1] * windows, shape[2] // windows, shape[3])
    q, k, v = (a.reshape(split) for a in (q, k, v))
    return attention(q, k, v, scale=shape[3] ** -0.5).reshape(shape)


class VisionBlock(nn.Module):
    """Attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: VisionConfig, norm: Callable[[int], nn.Module], mlp: nn.Module) -> None:
        """Make a block of the family's feed-forward part `mlp` and of norms that `norm` makes for a width."""
        super().__init__()
        self.norm1, self.norm2 = norm(config.hidden_size), norm(config.hidden_size)
        self.attn = VisionAttention(config)
        self.mlp = mlp

    def __call__(self, x: mx.array, angles: Angles, runs: Runs) -> mx.array:
        """Map [steps, patches, hidden_size] to the same shape."""
        x = x + self.attn(self.norm1(x), angles, runs)
        y: mx.array = x + self.mlp(self.norm2(x))
        return y


def rms_norm(width: int) -> nn.Module:
    """Return a norm over `width` numbers with a weight."""
    return nn.RMSNorm(width, eps=NORM_EPS)


def layer_norm(width: int) -> nn.Module:
    """Return a norm over `width` numbers with a weight and a bias."""
    return nn.LayerNorm(width, eps=NORM_EPS)


class GELU(nn.Module):
    """`activations.gelu` as a layer, which keeps its number among those of a merger."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map an array to one of the same shape."""
        return gelu(x)


class PatchMerger(nn.Module):
    """The merger of Qwen2-VL and Qwen2.5-VL: each square of patches becomes one vector of the decoder's width."""

    def __init__(self, config: VisionConfig, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        joined = config.hidden_size * config.spatial_merge_size**2
        self.ln_q = norm(config.hidden_size)
        self.mlp = [nn.Linear(joined, joined), GELU(), nn.Linear(joined, config.out_hidden_size)]
        self._joined = joined

    def __call__(self, x: mx.array) -> mx.array:
        """Map [steps, patches, hidden_size] to [steps, units, out_hidden_size]."""
        x = self.ln_q(x).reshape(x.shape[0], -1, self._joined)
        for layer in self.mlp:
            x = layer(x)
        return x


class VisionTower(nn.Module):
    """Patch embedding, blocks with window or full attention, and mergers; a family's tower fills in the parts."""

    def __init__(
        self,
        config: VisionConfig,
        block: Callable[[], VisionBlock],
        merger: Callable[[], nn.Module],
        patch_bias: bool = False,
    ) -> None:
        """Make a tower of `config`.

        Args:
            config: sizes.
            block: makes a block of the family.
            merger: makes what maps the output of the last block to the embeddings of the merged patches.
            patch_bias: whether the patch embedding has a bias.
        """
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config, patch_bias)
        self.blocks = [block() for _ in range(config.depth)]
        self.merger = merger()
        self._plan = lru_cache(maxsize=8)(self._make_plan)

    def __call__(self, pixel_values: mx.array, grid_thw: tuple[int, int, int], wrap: Wrap = identity) -> mx.array:
        """Return the features of one video (or image): [t × h × w / merge², features_width].

        A row is the embedding of a merged patch, then its DeepStack features, of the family's decoder layers in order.

        Args:
            pixel_values: [t × h × w, channels × frames × patch × patch], in the processor's order.
            grid_thw: temporal steps, rows and columns, in patches. Steps do not attend to each other, so videos of one
                size can be passed as one.
            wrap: called with each block; returns what is called in its place.
        """
        steps, height, width = grid_thw
        plan, angles = self._plan(height, width)
        unit = self.config.spatial_merge_size**2
        patches = pixel_values.reshape(steps, height * width // unit, unit, -1)[:, mx.array(plan.order)]
        x = self.patch_embed(patches.reshape(steps, height * width, -1))
        positions = self.position_embedding(height, width)
        x = x if positions is None else x + positions.astype(x.dtype)
        whole, deepstack = ((1, height * width),), []
        for number, block in enumerate(self.blocks):
            sees_all = self.config.window_size is None or number in self.config.fullatt_block_indexes
            x = wrap(block)(x, angles, whole if sees_all else plan.runs)
            deepstack += self.deepstack(number, x)
        merged = mx.concatenate([self.merger(x), *deepstack], axis=-1) if deepstack else self.merger(x)
        return merged[:, mx.array(np.argsort(plan.order))].reshape(-1, self.config.features_width)

    def position_embedding(self, height: int, width: int) -> mx.array | None:  # noqa: ARG002
        """Return what is added to the patches of a grid, [patches, hidden_size] in window order; None for nothing."""
        return None

    def deepstack(self, number: int, x: mx.array) -> list[mx.array]:  # noqa: ARG002
        """Return the DeepStack features [steps, units, out_hidden_size] of the output of block `number`."""
        return []

    def _make_plan(self, height: int, width: int) -> tuple[WindowPlan, Angles]:
        c = self.config
        side = max(height, width) if c.window_size is None else c.window_size // c.patch_size // c.spatial_merge_size
        plan = plan_windows(height, width, c.spatial_merge_size, side)
        angles = vision_angles(plan.rows, plan.columns, c.hidden_size // c.num_heads)
        mx.eval(*angles)
        return plan, angles
