"""Reads the stream settings of a checkpoint: a preset for what it was trained to do, and its ``stream.yaml``.

Imports no MLX.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from streaming_vlm_mlx.checkpoint_files import CONFIG, read_json
from streaming_vlm_mlx.config import Family, SamplingConfig, StreamConfig, Style
from streaming_vlm_mlx.config_io import read_settings
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.processor_config import read_pixel_config

STREAM = "stream.yaml"
STREAMINGVLM, LIVECC, INSTRUCT = "streamingvlm", "livecc", "instruct"

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
    # For models that were never trained to stream: the last frames alone, as in SimpleStream (arXiv 2604.02317), and
    # one short sentence. No penalty: it would count the words of the request too, and the "..." that this allows.
    INSTRUCT: StreamConfig(
        mode="recompute",
        window=2,
        text_round=8,
        sink=0,
        slide=64,
        style="instruct",
        sampling=SamplingConfig(
            repetition_penalty=1.0,
            max_new_tokens=40,
            max_words=20,
            max_sentences=1,
            no_repeat_ngram_size=8,
            repetition_window=16.0,
        ),
    ),
}
_OF_STYLE: Mapping[Style, str] = {"livecc": LIVECC, "instruct": INSTRUCT}


def read_stream_config(folder: Path, settings: Path | None = None) -> StreamConfig:
    """Return the settings of the checkpoint in `folder`: its preset's, its ``stream.yaml``'s, then those of a file.

    A ``style`` that belongs to another preset than that of the settings below it starts again from its own preset.
    Without settings of its own, pixels are prepared as the folder's processor config says.

    Args:
        folder: the checkpoint's folder.
        settings: YAML of settings that replace the checkpoint's own, or None.

    Raises:
        SvmError: a file cannot be read, or has an unknown setting or a value that does not fit.
    """
    given = _given(folder)
    preset = _choose_preset(folder, given)
    config = _read_preset(preset, folder).merged(given)
    if settings:
        over = read_settings(settings, StreamConfig)
        other = _preset_of_style(over["style"]) if "style" in over else preset
        config = (config if other == preset else _read_preset(other, folder)).merged(over)
    if config.style == "instruct" and config.mode != "recompute":
        raise SvmError(
            f"mode is {config.mode!r}; it must be 'recompute' with style 'instruct'. For StreamingVLM's rules, set "
            "style: inference."
        )
    return config


def preset_of(folder: Path) -> str:
    """Return the name of the preset for the checkpoint in `folder`, a key of `PRESETS`.

    The style in its ``stream.yaml`` decides. Without one, the checkpoint's name does: that of its folder, its hub id in
    a hub cache, or ``_name_or_path`` in its ``config.json``. LiveCC's is for a Qwen2-VL that is called LiveCC.
    StreamingVLM's is for one that is called so, and for models with a vocabulary of their own, which were trained to
    stream. All others of the families that run here are instruct models.

    Raises:
        SvmError: ``stream.yaml`` cannot be used.
    """
    return _choose_preset(folder, _given(folder))


def describe_preset(name: str, config: StreamConfig) -> str:
    """Return a sentence on how the checkpoint `name` runs under `config`; empty for one that was trained to stream."""
    if config.style != "instruct":
        return ""
    return (
        f"{name} was not trained to stream: it sees the last {round(config.window * config.fps)} frames and answers in "
        "one short sentence (preset instruct; docs/models.md)."
    )


def _given(folder: Path) -> dict[str, Any]:
    """Return the settings in the ``stream.yaml`` of `folder`; empty without one."""
    path = folder / STREAM
    return read_settings(path, StreamConfig) if path.is_file() else {}


def _read_preset(name: str, folder: Path) -> StreamConfig:
    """Return the preset `name`, with the pixel settings of the processor config in `folder`."""
    family = _read_hub_config(folder).get("model_type")
    if family not in get_args(Family):
        return PRESETS[name]
    return replace(PRESETS[name], pixels=read_pixel_config(folder, cast(Family, family)))


def _preset_of_style(style: Style) -> str:
    return _OF_STYLE.get(style, STREAMINGVLM)


def _choose_preset(folder: Path, given: Mapping[str, Any]) -> str:
    """Return the preset of `folder`, whose ``stream.yaml`` says `given`."""
    style = given.get("style")
    if style is not None:
        return _preset_of_style(style)
    config = _read_hub_config(folder)
    family = config.get("model_type")
    names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in _names(folder, config)]
    if family == "qwen2_vl" and any("livecc" in name for name in names):
        return LIVECC
    is_trained = bool(config.get("vocabulary")) or any("streamingvlm" in name for name in names)
    return STREAMINGVLM if is_trained or family not in get_args(Family) else INSTRUCT


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
