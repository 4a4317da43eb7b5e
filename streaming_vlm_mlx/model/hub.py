"""``config.json`` as Hugging Face's transformers writes and reads it; `ModelConfig.from_dict` is the way back."""

from typing import Any

from streaming_vlm_mlx.config import ModelConfig, QuantizationConfig, TextConfig, VisionConfig

ARCHITECTURES = {
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
}


def hub_values(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Return the values of ``config.json`` for weights of `dtype` (``float32``, ``bfloat16``, ``float16``)."""
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        "torch_dtype": dtype,
        "tie_word_embeddings": config.text_config.tie_word_embeddings,
        **{name: getattr(config, name) for name in ids},
        "text_config": _text(config.text_config),
        "vision_config": _vision(config.vision_config) if config.vision_config else None,
    }
    if config.vocabulary is not None:
        values["vocabulary"] = config.vocabulary
    if config.quantization is not None:
        values["quantization"] = quantization_block(config.quantization)
    return values


def quantization_block(config: QuantizationConfig) -> dict[str, Any]:
    """Return MLX's ``quantization`` block: what is said of single layers lies beside the rest."""
    values = config.to_dict()
    return {**values, **values.pop("layers")}


def _text(config: TextConfig) -> dict[str, Any]:
    values = config.to_dict()
    section = values.pop("mrope_section")
    return {**values, "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": section}}


def _vision(config: VisionConfig) -> dict[str, Any]:
    values = config.to_dict()
    if values.pop("architecture") == "qwen2_vl":
        for name in ("intermediate_size", "tokens_per_second", "window_size", "fullatt_block_indexes"):
            del values[name]
        ratio = _whole(config.intermediate_size / config.hidden_size)
        width = {"embed_dim": config.hidden_size, "hidden_size": values.pop("out_hidden_size"), "mlp_ratio": ratio}
        return {**values, **width}
    if config.tokens_per_second is not None:
        values["tokens_per_second"] = _whole(config.tokens_per_second)
    return values


def _whole(value: float) -> float:
    """Return `value`, as an int if it is whole: transformers takes no floats there."""
    return int(value) if value == int(value) else value
