"""Models in MLX: vision towers, language model, loading, quantization, adapters, conversion."""
