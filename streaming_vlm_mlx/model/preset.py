"""The small preset: the sizes of a model that trains on a laptop."""

from dataclasses import replace

from streaming_vlm_mlx.config import ModelConfig, TextConfig, VisionConfig

TINY_VISION = VisionConfig(
    depth=3,
    hidden_size=128,
    intermediate_size=384,
    num_heads=4,
    window_size=112,
    fullatt_block_indexes=(2,),
    out_hidden_size=192,
)
TINY_TEXT = TextConfig(
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=4096,
    mrope_section=(8, 8, 8),
    tie_word_embeddings=True,
)


def tiny_config(vocab_size: int, vision: bool = True) -> ModelConfig:
    """Return the preset's sizes for a vocabulary of `vocab_size` rows."""
    return ModelConfig(
        text_config=replace(TINY_TEXT, vocab_size=vocab_size),
        vision_config=TINY_VISION if vision else None,
        vocabulary="vocabulary.json",
    )
