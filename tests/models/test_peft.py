"""Compares adapters with PEFT's: those that it wrote, opened here, and those written here, opened by it."""

import math
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from streaming_vlm_mlx.models.adapter_info import load_adapter
from streaming_vlm_mlx.models.adapters import (
    Adapter,
    check_base,
    fingerprint,
    fuse_checkpoint,
    open_adapter,
    save_adapter,
)
from streaming_vlm_mlx.models.loading import load_checkpoint, load_weights, open_checkpoint
from streaming_vlm_mlx.models.peft import save_peft
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.text.tokenizer import Tokenizer

torch = pytest.importorskip("torch", reason="PEFT runs on torch")
peft = pytest.importorskip("peft", reason="it writes the adapters")
hf = import_module("tests.models.hugging_face")

LIMIT = 1e-4
GRID = (2, 4, 6)
Logits = npt.NDArray[np.float32]
NAMES = {
    "untied": "untied, two queries a key",
    "tied": "tied, one query a key",
    "qwen2": "qwen2: untied, two queries a key",
    "qwen3": "untied, two queries a key",
    "qwen3 tied": "tied, four queries a key, three DeepStack layers",
}
DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def make(name: str) -> Any:
    """Return the reference with seeded weights."""
    return hf.make_torch((hf.QWEN3_SIZES if name.startswith("qwen3") else hf.SIZES)[NAMES[name]], seed=5)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Path]:
    """The folders that transformers wrote of seeded models."""
    folders = {name: tmp_path_factory.mktemp("hub") / name for name in NAMES}
    for name, folder in folders.items():
        hf.load_saved(make(name), folder, tokenizer)
    return folders


@pytest.fixture(autouse=True)
def _tokenizer_is_read_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "load", lambda _=None: tokenizer)


def prompt(name: str) -> npt.NDArray[np.int32]:
    """Return text and a video; Qwen3-VL has each of its steps between marks of its own."""
    steps = GRID[0] if name.startswith("qwen3") else 1
    video = [hf.VIDEO_ROW] * (math.prod(GRID) // 4 // steps)
    spans = [row for step in range(steps) for row in (20 + step, 1, *video, 2)]
    return np.array([*range(5, 12), *spans, *range(30, 36)], np.int32)


def pixels(name: str) -> Logits:
    side = 16 if name.startswith("qwen3") else 14
    return np.random.default_rng(7).standard_normal((math.prod(GRID), 3 * 2 * side**2), dtype=np.float32)


def inputs(name: str) -> dict[str, Any]:
    ids = torch.tensor(prompt(name)[None].astype(np.int64))
    timing = {} if name.startswith(("qwen2", "qwen3")) else {"second_per_grid_ts": torch.tensor([1.0])}
    shown = {"video_grid_thw": torch.tensor([GRID]), "mm_token_type_ids": 2 * (ids == hf.VIDEO_ROW)}
    return {"input_ids": ids, **shown, **timing}


def reference_logits(name: str, model: Any) -> Logits:
    with torch.no_grad():
        found = model(**inputs(name), pixel_values_videos=torch.tensor(pixels(name))).logits[0].numpy()
    return np.asarray(found)


@cache
def plain_logits(name: str) -> Logits:
    """Return the logits without an adapter."""
    return reference_logits(name, make(name))


@cache
def positions(name: str) -> npt.NDArray[np.int64]:
    reference = make(name)
    found, _ = reference.model.get_rope_index(**inputs(name))
    return np.asarray(found[:, 0].numpy())


def logits(name: str, model: VisionLanguageModel) -> Logits:
    ids = prompt(name)
    is_video = ids == hf.VIDEO_ROW
    features = model.visual(mx.array(pixels(name)), GRID)
    x, deepstack = model.embed(ids, features, is_video), model.deepstack(features, is_video)
    return np.array(model.head(model.model(x, model.model.rope(positions(name)), deepstack=deepstack))[0])


def write(name: str, out: Path, **settings: Any) -> Logits:
    """Let PEFT write an adapter with values that are no first values; return its logits."""
    model = peft.get_peft_model(make(name), peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **settings}))
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                is_whole = "lora_" not in key or "magnitude" in key
                parameter.copy_(parameter * (1 + 0.2 * noise) if is_whole else 0.2 * noise)
    model.eval()
    model.save_pretrained(out)
    return reference_logits(name, model)


def opened_here(name: str, base: Path, adapter: Path) -> Logits:
    info, opened = open_checkpoint(base), open_adapter(adapter)
    check_base(opened, info)
    load_weights(info, mx.float32)
    load_adapter(opened, info, mx.float32)
    return logits(name, info.model)


ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("untied", {"target_modules": DECODER}),
    "rslora": ("untied", {"target_modules": DECODER, "use_rslora": True}),
    "dora": ("untied", {"target_modules": DECODER, "use_dora": True}),
    "everything": ("untied", {"target_modules": "all-linear", "use_dora": True, "use_rslora": True}),
    "an expression": ("untied", {"target_modules": r".*visual.*\.(qkv|attn\.proj)|.*layers\.\d+\.mlp\.\w+_proj"}),
    "ranks": (
        "untied",
        {
            "target_modules": DECODER,
            "exclude_modules": ["o_proj"],
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 3},
            "alpha_pattern": {"q_proj": 5},
        },
    ),
    "one layer": ("untied", {"target_modules": DECODER, "layers_to_transform": [1], "layers_pattern": "layers"}),
    "whole modules": (
        "untied",
        {"target_modules": ["q_proj", "gate_proj"], "modules_to_save": ["norm", "embed_tokens", "lm_head", "merger"]},
    ),
    "biases": ("untied", {"target_modules": ["q_proj", "o_proj"], "bias": "all", "fan_in_fan_out": True}),
    "a head": ("untied", {"target_modules": ["q_proj", "lm_head"]}),
    "an embedding and patches": ("untied", {"target_modules": ["embed_tokens", "proj"]}),
    "tied": ("tied", {"target_modules": "all-linear"}),
    "tied: whole head": ("tied", {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}),
    "tied: whole embedding": ("tied", {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]}),
    "tied: both": (
        "tied",
        {
            "target_modules": ["v_proj"],
            "modules_to_save": ["embed_tokens", "lm_head"],
            "ensure_weight_tying": True,
        },
    ),
    "tied: adapted head": ("tied", {"target_modules": ["v_proj", "lm_head"]}),
    "tied: adapted embedding": ("tied", {"target_modules": ["v_proj", "embed_tokens"]}),
    "qwen2": ("qwen2", {"target_modules": "all-linear", "use_dora": True}),
    "qwen3: lora": ("qwen3", {"target_modules": "all-linear"}),
    "qwen3: rslora": ("qwen3", {"target_modules": DECODER, "use_rslora": True}),
    "qwen3: dora": ("qwen3", {"target_modules": "all-linear", "use_dora": True, "modules_to_save": ["merger"]}),
    "qwen3: patches": ("qwen3", {"target_modules": ["qkv", "proj", "linear_fc1"], "modules_to_save": ["q_norm"]}),
    "qwen3: tied": ("qwen3 tied", {"target_modules": [*DECODER, "lm_head"]}),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_of_peft_computes_what_it_does_there(case: str, bases: dict[str, Path], tmp_path: Path) -> None:
    name, settings = ADAPTERS[case]
    expected = write(name, tmp_path / "a", **settings)
    found = opened_here(name, bases[name], tmp_path / "a")
    assert np.abs(found - expected).max() < LIMIT
    assert np.abs(expected - plain_logits(name)).max() > 0.05


OURS = {
    "lora": "lora",
    "dora": "everything",
    "ranks": "ranks",
    "whole modules": "whole modules",
    "qwen2": "qwen2",
    "biases": "biases",
    "qwen3": "qwen3: dora",
}


@pytest.mark.parametrize("case", OURS)
def test_what_is_written_here_computes_the_same_in_peft(case: str, bases: dict[str, Path], tmp_path: Path) -> None:
    name, settings = ADAPTERS[OURS[case]]
    expected = write(name, tmp_path / "a", **settings)
    # By way of this program's own folder.
    info, opened = open_checkpoint(bases[name]), open_adapter(tmp_path / "a")
    checkpoint = load_weights(info, mx.float32)
    load_adapter(opened, info, mx.float32)
    save_adapter(tmp_path / "ours", Adapter(opened.lora, "some/base", fingerprint(bases[name])), checkpoint)
    save_peft(tmp_path / "peft", open_adapter(tmp_path / "ours"))
    assert np.abs(opened_here(name, bases[name], tmp_path / "peft") - expected).max() < LIMIT
    model = make(name)
    again = peft.PeftModel.from_pretrained(model, tmp_path / "peft").eval()
    assert np.abs(reference_logits(name, again) - expected).max() < LIMIT


def test_the_names_of_older_programs_are_read(bases: dict[str, Path], tmp_path: Path) -> None:
    """transformers before 4.52, torch.compile, data-parallel training, and files that name the adapter."""
    name, settings = ADAPTERS["whole modules"]
    expected = write(name, tmp_path / "a", **settings)
    arrays = load_file(tmp_path / "a" / WEIGHTS)

    def older(key: str) -> str:
        key = key.replace("model.language_model.", "model.").replace("model.model.visual.", "model.visual.")
        key = key.replace("norm.weight", "norm.modules_to_save.default.weight")
        return "module._orig_mod." + key.replace("lora_A.weight", "lora_A.default.weight")

    save_file({older(key): array for key, array in arrays.items()}, tmp_path / "a" / WEIGHTS)
    assert np.abs(opened_here(name, bases[name], tmp_path / "a") - expected).max() < LIMIT


def test_fused_it_computes_the_same(bases: dict[str, Path], tmp_path: Path) -> None:
    for case in ("everything", "tied: whole head", "an embedding and patches", "biases"):
        name, settings = ADAPTERS[case]
        folder = tmp_path / case
        expected = write(name, folder / "a", **settings)
        fuse_checkpoint(bases[name], folder / "a", folder / "fused")
        assert np.abs(logits(name, load_checkpoint(folder / "fused", mx.float32).model) - expected).max() < LIMIT, case
