"""Reads the stream settings of a checkpoint: a preset for what it was trained to do, and its ``stream.yaml``.

Imports no MLX.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from streaming_vlm_mlx.checkpoint_files import CONFIG, read_json
from streaming_vlm_mlx.config import Family, SamplingConfig, StreamConfig
from streaming_vlm_mlx.config_io import read_settings
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.processor_config import read_pixel_config

STREAM = "stream.yaml"
STREAMINGVLM, LIVECC = "streamingvlm", "livecc"

# The settings of each preset; a checkpoint's stream.yaml overrides single ones.
PRESETS: Mapping[str, StreamConfig] = {
    # The published StreamingVLM program.
    STREAMINGVLM: StreamConfig(),
    # LiveCC's demo (arXiv 2504.16030; showlab/livecc): nothing is dropped, the silence rule is on with its 0 and 0.
    LIVECC: StreamConfig(
        mode="full",
        pos_mode="append",
        style="livecc",
        query="Please describe the video.",
        sampling=SamplingConfig(repetition_penalty=1.05, silence_threshold=0.0, silence_step=0.0, max_new_tokens=16),
    ),
}


def read_stream_config(folder: Path) -> StreamConfig:
    """Return the settings of the checkpoint in `folder`: those in its ``stream.yaml``, else those of its preset.

    Without settings of its own, pixels are prepared as the folder's processor config says.

    Raises:
        SvmError: a file cannot be read, or has an unknown setting or a value that does not fit.
    """
    given = _given(folder)
    preset = PRESETS[_choose_preset(folder, given)]
    family = _read_hub_config(folder).get("model_type")
    if family in get_args(Family):
        preset = replace(preset, pixels=read_pixel_config(folder, cast(Family, family)))
    return preset.merged(given)


def preset_of(folder: Path) -> str:
    """Return the name of the preset for the checkpoint in `folder`, a key of `PRESETS`.

    LiveCC's is chosen by ``style: livecc`` in ``stream.yaml``. Without a style there, it is chosen for a Qwen2-VL that
    is called LiveCC: by its folder, by its hub id in a hub cache, or by ``_name_or_path`` in its ``config.json``.

    Raises:
        SvmError: ``stream.yaml`` cannot be used.
    """
    return _choose_preset(folder, _given(folder))


def _given(folder: Path) -> dict[str, Any]:
    """Return the settings in the ``stream.yaml`` of `folder`; empty without one."""
    path = folder / STREAM
    return read_settings(path, StreamConfig) if path.is_file() else {}


def _choose_preset(folder: Path, given: Mapping[str, Any]) -> str:
    """Return the preset of `folder`, whose ``stream.yaml`` says `given`."""
    style = given.get("style")
    if style is not None:
        return LIVECC if style == "livecc" else STREAMINGVLM
    config = _read_hub_config(folder)
    is_livecc = any("livecc" in name.lower() for name in _names(folder, config))
    return LIVECC if is_livecc and config.get("model_type") == "qwen2_vl" else STREAMINGVLM


def _read_hub_config(folder: Path) -> Mapping[str, Any]:
    """Return the values of ``config.json`` in `folder`; empty if there are none, which is for the loader to report."""
    try:
        return read_json(folder / CONFIG)
    except SvmError:
        return {}


def _names(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Return what the checkpoint in `folder` is called, also in a hub cache: ``models--owner--name/snapshots/…``."""
    folder = folder.absolute()
    hub = [folder.parents[1].name] if folder.parent.name == "snapshots" else []
    stated = config.get("_name_or_path")
    return [folder.name, *hub, *([stated] if isinstance(stated, str) else [])]
