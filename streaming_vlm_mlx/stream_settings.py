"""Reads the stream settings of a checkpoint: a preset for what it was trained to do, and its ``stream.yaml``.

Imports no MLX.
"""

from pathlib import Path

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.config_io import read_settings

STREAM = "stream.yaml"


def read_stream_config(folder: Path) -> StreamConfig:
    """Return the settings of the checkpoint in `folder`: those in its ``stream.yaml``, else those of its preset.

    Raises:
        SvmError: the file cannot be read, or has an unknown setting or a value that does not fit.
    """
    path = folder / STREAM
    given = read_settings(path, StreamConfig) if path.is_file() else {}
    return StreamConfig().merged(given)
