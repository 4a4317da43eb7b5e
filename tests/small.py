"""A model with every part at a size that a test can afford."""

import mlx.core as mx
import numpy as np

from streaming_vlm_mlx.config import ModelConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.models.sizes import seed_weights
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, build

SMALL_VISION = VisionConfig(
    depth=2,
    hidden_size=16,
    intermediate_size=24,
    num_heads=2,
    window_size=56,
    fullatt_block_indexes=(1,),
    out_hidden_size=32,
)


def small_config(rows: int, layers: int = 2, vision: bool = True, tied: bool = True) -> ModelConfig:
    """Return sizes for a compact vocabulary of `rows`."""
    text = TextConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=rows,
        mrope_section=(1, 1, 2),
        tie_word_embeddings=tied,
    )
    return ModelConfig(text_config=text, vision_config=SMALL_VISION if vision else None, vocabulary="vocabulary.json")


def small_model(config: ModelConfig, seed: int = 0) -> VisionLanguageModel:
    """Return a model of `config` with seeded weights, evaluated."""
    model = VisionLanguageModel(config)
    seed_weights(model, seed)
    mx.eval(model.parameters())
    return model


def small_vocabulary(tokenizer: Tokenizer, size: int) -> CompactVocabulary:
    """Return a vocabulary of `size` rows without a corpus: what must be there, then the first ranks."""
    return build(tokenizer, np.zeros(len(tokenizer), np.int64), size)
