"""Fixtures for every room."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from streaming_vlm_mlx.backend import prepare
from streaming_vlm_mlx.text.tokenizer import Tokenizer

# Before any test imports MLX, which is twenty times slower on its own BLAS.
prepare()

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of outside truth: recorded conformance cases, real clips, tokenizer files."""
    folder = Path(os.environ.get("SVM_TUI_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no fixtures in {folder}; set SVM_TUI_SHARED to the folder that holds clips/ and conformance/")
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Qwen's own."""
    return Tokenizer.load()


@pytest.fixture(scope="session")
def untrained(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's folder with random weights: it speaks in every second, and means nothing."""
    import mlx.core as mx

    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
    from streaming_vlm_mlx.models.presets import TinyStreamingDecoder, seed_weights
    from tests.small import small_vocabulary

    model = TinyStreamingDecoder(4096)
    seed_weights(model, 3)
    mx.eval(model.parameters())
    folder = tmp_path_factory.mktemp("checkpoints") / "untrained"
    save_checkpoint(folder, Checkpoint(model, tokenizer, small_vocabulary(tokenizer, 4096), StreamConfig()))
    return folder
