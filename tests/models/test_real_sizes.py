"""Opens folders of published sizes: names and shapes are those of transformers, the weights are sparse files."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.families import read_config
from streaming_vlm_mlx.models.loading import open_checkpoint
from streaming_vlm_mlx.models.memory_budget import budget_of
from streaming_vlm_mlx.models.sizes import PUBLISHED
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.processor_config import read_pixel_config
from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
from streaming_vlm_mlx.text.tokenizer import SHIPPED, Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

INDEX = "model.safetensors.index.json"
SHARD = 5_000_000_000
ROPE = {"type": "mrope", "mrope_section": [16, 24, 24]}
IDS = {"vision_start_token_id": 151652, "vision_end_token_id": 151653, "vision_token_id": 151654}
IDS |= {"image_token_id": 151655, "video_token_id": 151656, "bos_token_id": 151643, "eos_token_id": 151645}

Shapes = dict[str, tuple[int, ...]]


def settings(family: str, text: tuple[int, ...], tied: bool) -> dict[str, Any]:
    """Return ``config.json`` as the hub has it; `text` is width, feed-forward, layers, heads, key heads and rows."""
    width, inner, layers, heads, kv_heads, rows = text
    vision: dict[str, Any] = {"depth": 32, "num_heads": 16, "in_chans": 3, "patch_size": 14, "spatial_patch_size": 14}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    if family == "qwen2_vl":
        vision |= {"embed_dim": 1280, "mlp_ratio": 4, "hidden_size": width}
    else:
        vision |= {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": width, "hidden_act": "silu"}
        vision |= {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2}
    return {
        "architectures": [f"{NAMES[family]}ForConditionalGeneration"],
        "model_type": family,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": rows,
        "hidden_act": "silu",
        "max_position_embeddings": 128000 if family == "qwen2_5_vl" else 32768,
        "max_window_layers": layers,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": ROPE,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "vision_config": vision,
        **IDS,
    }


def qwen3(text: tuple[int, ...], tower: tuple[int, ...], deepstack: list[int], tied: bool) -> dict[str, Any]:
    """Return ``config.json`` of a Qwen3-VL as the hub has it; `tower` is depth, width and feed-forward."""
    width, inner, layers, heads, kv_heads, rows = text
    depth, tower_width, tower_inner = tower
    decoder = {
        "attention_bias": False,
        "dtype": "bfloat16",
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": inner,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000,
        "vocab_size": rows,
    }
    vision = {
        "deepstack_visual_indexes": deepstack,
        "depth": depth,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": tower_width,
        "in_channels": 3,
        "intermediate_size": tower_inner,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": width,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": decoder | ({"tie_word_embeddings": True} if tied else {}),
        "tie_word_embeddings": tied,
        "vision_config": vision,
        **{name: IDS[name] for name in IDS if name.startswith(("vision_s", "vision_e", "image", "video"))},
    }


NAMES = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
SMALL, LARGE = ((24, 1024, 4096), [5, 11, 17]), ((27, 1152, 4304), [8, 16, 24])
# What the hub says of the published sizes: their settings and how many weights they have.
HUB = {
    "Qwen2.5-VL 3B": (settings("qwen2_5_vl", (2048, 11008, 36, 16, 2, 151936), tied=True), 3_754_622_976),
    "Qwen2.5-VL 7B": (settings("qwen2_5_vl", (3584, 18944, 28, 28, 4, 152064), tied=False), 8_292_166_656),
    "Qwen2-VL 2B": (settings("qwen2_vl", (1536, 8960, 28, 12, 2, 151936), tied=True), 2_208_985_600),
    "Qwen2-VL 7B": (settings("qwen2_vl", (3584, 18944, 28, 28, 4, 152064), tied=False), 8_291_375_616),
    "Qwen3-VL 2B": (qwen3((2048, 6144, 28, 16, 8, 151936), *SMALL, tied=True), 2_127_532_032),
    "Qwen3-VL 4B": (qwen3((2560, 9728, 36, 32, 8, 151936), *SMALL, tied=True), 4_437_815_808),
    "Qwen3-VL 8B": (qwen3((4096, 12288, 36, 32, 8, 151936), *LARGE, tied=False), 8_767_123_696),
    "Qwen3-VL 32B": (qwen3((5120, 25600, 64, 64, 8, 151936), *LARGE, tied=False), 33_357_390_064),
}


@cache
def reference_shapes(model: str) -> Shapes:
    """Return what the weights of one of `HUB` are called by the reference today, and their shapes."""
    values, _ = HUB[model]
    outside = ("vision_config", "model_type", "architectures", "torch_dtype")
    text = values.get("text_config") or {k: v for k, v in values.items() if k not in outside}
    tied, name = values["tie_word_embeddings"], NAMES[values["model_type"]]
    config = getattr(transformers, f"{name}Config")(
        text_config=text, vision_config=values["vision_config"], tie_word_embeddings=tied
    )
    with torch.device("meta"):
        made = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    named = {name: tuple(array.shape) for name, array in made.state_dict().items()}
    return {name: shape for name, shape in named.items() if not (tied and name == "lm_head.weight")}


def first_names(name: str) -> str:
    """Return what the folders on the hub call what the reference calls `name` today."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def mlx_names(name: str) -> str:
    """Return what mlx-community's folders call it."""
    return (
        first_names(name).replace("visual.", "vision_tower.")
        if "visual." in name
        else f"language_model.{first_names(name)}"
    )


def in_four_bits(shapes: Shapes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the tensors of mlx-community's 4-bit folders: a plain tower, channels last in its patches."""
    made: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        ours = mlx_names(name)
        if "visual." not in name and len(shape) == 2:
            made[ours] = "U32", (shape[0], shape[1] // 8)
            layer = ours.removesuffix(".weight")
            made |= {f"{layer}.{part}": ("BF16", (shape[0], shape[1] // 64)) for part in ("scales", "biases")}
        else:
            made[ours] = "BF16", (shape[0], *shape[2:], shape[1]) if len(shape) == 5 else shape
    return made


def lay(folder: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], values: Mapping[str, Any]) -> None:
    """Write headers and an index, shards of 5 GB at most, and behind each header a hole."""
    shards: list[dict[str, Any]] = [{}]
    size = 0
    for name, (dtype, shape) in tensors.items():
        nbytes = {"BF16": 2, "U32": 4}[dtype]
        for side in shape:
            nbytes *= side
        if size + nbytes > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = {"dtype": dtype, "shape": shape, "data_offsets": [size, size + nbytes]}
        size += nbytes
    where = {}
    for number, shard in enumerate(shards):
        file, header = f"model-{number + 1:05}-of-{len(shards):05}.safetensors", json.dumps(shard).encode()
        with (folder / file).open("wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            out.truncate(8 + len(header) + max(entry["data_offsets"][1] for entry in shard.values()))
        where |= dict.fromkeys(shard, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    shutil.copyfile(SHIPPED / "tokenizer.json", folder / "tokenizer.json")


@pytest.fixture(autouse=True)
def _tokenizer_taken_as_read(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "load", lambda _=None: tokenizer)


def newer_names(name: str) -> str:
    """Return what the reference calls `name`, and newer folders."""
    return name


# Every folder of Qwen3-VL has the newer names.
SPELT = [(model, newer_names) for model in HUB]
SPELT += [(model, first_names) for model, (values, _) in HUB.items() if values["model_type"] != "qwen3_vl"]


@pytest.mark.parametrize(("model", "rename"), SPELT)
def test_a_published_folder_is_found_whole(tmp_path: Path, model: str, rename: Callable[[str], str]) -> None:
    values, count = HUB[model]
    lay(tmp_path, {rename(name): ("BF16", shape) for name, shape in reference_shapes(model).items()}, values)
    info = open_checkpoint(tmp_path)
    stream = StreamConfig(pixels=read_pixel_config(tmp_path, values["model_type"]))
    assert info.config.vocabulary is None
    assert sum(stored.size for stored in info.tensors.values()) == count
    assert VisionLanguageModel(info.config).parameter_count() == count
    _, estimated = budget_of(tmp_path, stream, mx.bfloat16, gpu=True)
    assert estimated.weights == 2 * count
    _, here = budget_of(tmp_path, stream, mx.bfloat16, gpu=mx.default_device().type != mx.DeviceType.cpu)
    # Four bits save 1.4 bytes a weight, eight bits 0.8.
    limit = here.peak - 5 * count // 4
    with pytest.raises(SvmError, match=r"needs .* what would fit: 'svm-tui convert-ckpt --bits 4'"):
        bundle_loader(tmp_path, mx.bfloat16, stream, limit=limit)(lambda _: None)


def test_a_folder_of_mlx_community_is_found_whole(tmp_path: Path) -> None:
    values, count = HUB["Qwen2.5-VL 3B"]
    block = {"group_size": 64, "bits": 4}
    tensors = in_four_bits(reference_shapes("Qwen2.5-VL 3B"))
    lay(tmp_path, tensors, values | {"quantization": block, "quantization_config": block})
    info = open_checkpoint(tmp_path)
    assert VisionLanguageModel(info.config).parameter_count() == count
    _, estimated = budget_of(tmp_path, StreamConfig(), mx.bfloat16, gpu=True)
    assert estimated.weights == sum(stored.nbytes for stored in info.tensors.values())
    assert 3.0e9 < estimated.weights < 3.1e9


def test_the_table_of_published_sizes_is_what_the_hub_has() -> None:
    assert {name: read_config(values) for name, (values, _) in HUB.items()} == dict(PUBLISHED)
