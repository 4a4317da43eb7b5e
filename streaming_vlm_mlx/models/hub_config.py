"""Reads and writes what the families share in a hub folder's ``config.json``: the language model's settings.

Settings of the language model are in ``text_config``, or, in older folders, at the root.
"""

from collections.abc import Mapping
from typing import Any

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.config_io import demand, part_of

# Settings of `TextConfig` that follow from the family; the hub's config.json does not have them under these names.
_OURS = ("mrope_interleaved", "qkv_bias", "qk_norm")


def read_text(values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the language model's settings in `values` under the names of `TextConfig`; `defaults` where it has none.

    Raises:
        SvmError: a part is not a mapping, rotary embeddings are scaled, or a setting asks for another activation or for
            attention within a window.
    """
    text = {**values, **part_of(values, "text_config")}
    rope = part_of(text, "rope_scaling") or part_of(text, "rope_parameters")
    kind = rope.get("rope_type") or rope.get("type") or "default"
    demand(kind in ("default", "mrope"), "config: rope_type", kind, "'default' or 'mrope'")
    text.setdefault("mrope_section", rope.get("mrope_section"))
    text["rope_theta"] = rope.get("rope_theta", text.get("rope_theta"))
    # Hub folders have this setting at the root, in text_config, or in both.
    text["tie_word_embeddings"] = text.get("tie_word_embeddings") or values.get("tie_word_embeddings")
    activation, slides = text.get("hidden_act") or "silu", text.get("use_sliding_window") or False
    demand(activation in ("silu", "swish"), "config: hidden_act", activation, "'silu'")
    demand(slides is False, "config: use_sliding_window", slides, "False")
    given = {name: value for name, value in text.items() if name not in _OURS and value is not None}
    return {**(defaults or {}), **given}


def write_text(config: TextConfig) -> dict[str, Any]:
    """Return `config` under the hub's names, as Qwen2-VL and Qwen2.5-VL have it."""
    values = {name: value for name, value in config.to_dict().items() if name not in (*_OURS, "head_dim")}
    section = values.pop("mrope_section")
    return {**values, "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": section}}


def expect(part: object, where: str, **settings: object) -> None:
    """Check that `part` has these `settings`, which are the same in all models of a family.

    Raises:
        SvmError: names the first setting that differs; `where` comes before its name.
    """
    for name, value in settings.items():
        demand(getattr(part, name) == value, f"config: {where}{name}", getattr(part, name), repr(value))


def expect_qwen2_text(config: TextConfig) -> None:
    """Check that `config` is a language model of Qwen2-VL or Qwen2.5-VL.

    Raises:
        SvmError: names the setting that differs.
    """
    expect(config, "", mrope_interleaved=False, qkv_bias=True, qk_norm=False)
    width = config.hidden_size // config.num_attention_heads
    demand(config.head_dim == width, "config: head_dim", config.head_dim, f"hidden_size / num_attention_heads, {width}")
