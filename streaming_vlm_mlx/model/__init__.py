"""Qwen2.5-VL in MLX, under Hugging Face's parameter names."""
