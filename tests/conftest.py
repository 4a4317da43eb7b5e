"""Fixtures for all packages."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from streaming_vlm_mlx.backend import prepare
from streaming_vlm_mlx.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tests.crash.assets import Assets
    from tests.crash.launcher import Launcher

# Parallel workers share the cores; more threads than cores only wait for each other.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, str(max((os.cpu_count() or 1) // WORKERS, 1)))

# Before any test imports MLX, which is twenty times slower with its own BLAS.
prepare()

# Examples may take any time: the machine can be busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each worker a state folder and a cache of its own, so that tests neither read nor change the user's."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        # matplotlib's list of fonts takes seconds to make.
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or str(cache / "matplotlib"))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def collecting() -> Iterator[None]:
    """Collect garbage afterwards; a player that was refused does not begin to."""
    yield
    gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of outside references: recorded conformance cases, real clips, tokenizer files."""
    folder = Path(os.environ.get("SVM_TUI_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no fixtures in {folder}; set SVM_TUI_SHARED to the folder that holds clips/ and conformance/")
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Qwen's tokenizer."""
    return Tokenizer.load()


@pytest.fixture(scope="session")
def untrained(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's folder with random weights: it generates text in every second."""
    import mlx.core as mx

    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
    from streaming_vlm_mlx.models.sizes import TinyStreamingDecoder, seed_weights
    from tests.small import small_vocabulary

    model = TinyStreamingDecoder(4096)
    seed_weights(model, 3)
    mx.eval(model.parameters())
    folder = tmp_path_factory.mktemp("checkpoints") / "untrained"
    save_checkpoint(folder, Checkpoint(model, tokenizer, small_vocabulary(tokenizer, 4096), StreamConfig()))
    return folder


@pytest.fixture(scope="session")
def launcher() -> Iterator["Launcher"]:
    """A program that has imported everything, and forks for each run of ``svm-tui``."""
    if sys.platform != "linux":
        pytest.skip("a fork of a program that has imported MLX works on Linux only")
    from tests.crash.launcher import Launcher

    with Launcher() as running:
        yield running


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Assets"]:
    """Files for the commands that `launcher` starts, and a hub."""
    from tests.crash.assets import making_assets

    with making_assets(tmp_path_factory.mktemp("assets")) as made:
        yield made
