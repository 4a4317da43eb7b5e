"""The vision-language model: vision tower, decoder and head, with the parameter names of Hugging Face's folders."""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from streaming_vlm_mlx.config import ModelConfig
from streaming_vlm_mlx.models.families import family_of
from streaming_vlm_mlx.models.language import DeepStack, StreamingDecoder
from streaming_vlm_mlx.models.quantization import quantize_layers
from streaming_vlm_mlx.quantization_config import QuantizationConfig

# The parameters of a quantized layer; only those with mode `affine` have biases.
_PACKED = ("weight", "scales", "biases")


class VisionLanguageModel(nn.Module):
    """Weights and pure functions; the cache, positions and spans of a stream are kept by the stream."""

    def __init__(self, config: ModelConfig) -> None:
        """Create random weights, computed when first used; without a `vision_config` the model reads text only.

        Raises:
            SvmError: the family has no such model, or the inputs of a layer to quantize do not divide into groups.
        """
        super().__init__()
        self._config = config
        family = family_of(config)
        family.check(config)
        if config.vision_config is not None:
            self.visual = family.VisionTower(config.vision_config)
        self.model = StreamingDecoder(config.text_config)
        if not config.text_config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        if config.quantization is not None:
            self.quantize(config.quantization)

    def quantize(self, quantization: QuantizationConfig) -> None:
        """Replace the layers that `quantization` names with quantized ones, and update `config`.

        Raises:
            SvmError: the inputs of a layer do not divide into groups.
        """
        quantize_layers(self, quantization)
        self._config = replace(self._config, quantization=quantization)

    def untie(self) -> None:
        """Give a model whose head is its embedding a head of its own, which shares the embedding's arrays at first."""
        if "lm_head" in self:
            return
        words, text = self.model.embed_tokens, self._config.text_config
        head: nn.Linear | nn.QuantizedLinear = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        if isinstance(words, nn.QuantizedEmbedding):
            packing = words.group_size, words.bits, words.mode
            head = nn.QuantizedLinear(text.hidden_size, text.vocab_size, False, *packing)
        self["lm_head"] = head.update(words.parameters())
        self._config = replace(self._config, text_config=replace(text, tie_word_embeddings=False))

    @property
    def config(self) -> ModelConfig:
        """Sizes and special ids."""
        return self._config

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of the model's computations."""
        return self.model.norm.weight.dtype

    def head(self, hidden: mx.array) -> mx.array:
        """Return logits [..., vocab_size] of hidden states [..., hidden_size]."""
        head = self.lm_head if "lm_head" in self else self.model.embed_tokens.as_linear
        logits: mx.array = head(hidden)
        return logits

    def embed(
        self, rows: npt.NDArray[np.int32] | mx.array, features: mx.array | None, is_video: npt.NDArray[np.bool_]
    ) -> mx.array:
        """Return embeddings [1, n, hidden_size] of `rows` [n], with those in `features` at the video places.

        Args:
            rows: embedding rows of the tokens.
            features: the vision tower's features of the video tokens in order, [m, features_width], or None.
            is_video: which tokens are video, [n] with m true.
        """
        x: mx.array = self.model.embed_tokens(mx.array(rows)).astype(self.dtype)
        if features is not None:
            x[mx.array(np.flatnonzero(is_video))] = features[:, : x.shape[1]].astype(x.dtype)
        return x[None]

    def deepstack(self, features: mx.array | None, is_video: npt.NDArray[np.bool_]) -> DeepStack | None:
        """Return what the decoder adds behind its first layers; None without video, or in a family without DeepStack.

        The arguments are those of `embed`.
        """
        width = self._config.text_config.hidden_size
        if features is None or features.shape[1] == width:
            return None
        return DeepStack(mx.array(np.flatnonzero(is_video)), features[:, width:])

    def linears(self) -> Iterator[nn.Linear]:
        """Yield every unquantized linear layer."""
        for module in self.modules():
            if type(module) is nn.Linear:
                yield module

    def named_arrays(self) -> list[tuple[str, mx.array]]:
        """Return every weight with its dotted name, which is its name in a Hugging Face folder."""
        return cast(list[tuple[str, mx.array]], tree_flatten(self.parameters()))

    def parameter_count(self) -> int:
        """Return how many weights the model has; packed weights count one by one."""
        packed = (m for m in self.modules() if isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding))
        # A packed layer holds several weights in a number, and a scale and perhaps a bias for each group.
        more: int = sum(
            m.weight.size * 32 // m.bits - sum(m[part].size for part in _PACKED if part in m) for m in packed
        )
        return more + sum(array.size for _, array in self.named_arrays())
