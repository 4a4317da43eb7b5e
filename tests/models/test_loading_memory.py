"""Measures in a process of its own that loading takes at most 1.15 times the memory of the weights."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from streaming_vlm_mlx.config import ModelConfig, TextConfig, VisionConfig
from streaming_vlm_mlx.models.loading import hub_values
from streaming_vlm_mlx.models.sizes import PUBLISHED
from streaming_vlm_mlx.models.vlm import VisionLanguageModel

LIMIT = 1.15
ROOT = Path(__file__).parents[2]
TEXT = TextConfig(
    hidden_size=512,
    intermediate_size=2048,
    num_hidden_layers=14,
    num_attention_heads=8,
    num_key_value_heads=2,
    vocab_size=448,
    mrope_section=(8, 12, 12),
)
VISION = VisionConfig(depth=4, hidden_size=256, intermediate_size=684, num_heads=4, out_hidden_size=512)
_QWEN3 = PUBLISHED["Qwen3-VL 2B"]
assert _QWEN3.vision_config is not None
MODELS = {
    "Qwen2.5-VL": ModelConfig(TEXT, VISION),
    "Qwen3-VL": replace(
        _QWEN3,
        text_config=replace(
            _QWEN3.text_config,
            hidden_size=512,
            intermediate_size=2048,
            num_hidden_layers=14,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=448,
        ),
        vision_config=replace(
            _QWEN3.vision_config,
            depth=4,
            hidden_size=256,
            intermediate_size=684,
            num_heads=4,
            deepstack_visual_indexes=(0, 1, 2),
            out_hidden_size=512,
        ),
    ),
}
# The tokenizer is left out: what it lets go of would be used again by the weights, and hide what these take.
MEASURE = """
import json, resource, sys
from pathlib import Path
from streaming_vlm_mlx.backend import prepare
prepare()
import mlx.core as mx
from streaming_vlm_mlx.memory import process_memory
from streaming_vlm_mlx.models.loading import CheckpointInfo, WeightLayout, load_weights, read_model_config
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.models.weights import list_tensors, sanitize_name
from streaming_vlm_mlx.models.loading import arrange_for_decode
folder, dtype = Path(sys.argv[1]), getattr(mx, sys.argv[2])
config = read_model_config(folder)
layout = WeightLayout(config.text_config.vocab_size)
info = CheckpointInfo(folder, VisionLanguageModel(config), list_tensors(folder, sanitize_name), layout, None, None)
mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
mx.reset_peak_memory()
before = process_memory()
checkpoint = load_weights(info, dtype)
arrange_for_decode(checkpoint.model)
status = Path("/proc/self/status")
if status.exists():
    # Linux's ru_maxrss counts in what the process was forked from.
    after = 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
else:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
weights = sum(array.nbytes for _, array in checkpoint.model.named_arrays())
print(json.dumps({"weights": weights, "grown": after - before, "peak": mx.get_peak_memory()}))
"""


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than 55 million bfloat16 weights in five shards; what they are does not matter."""
    config = request.param
    folder = tmp_path_factory.mktemp("hub")
    named = VisionLanguageModel(config).named_arrays()
    where = {name: f"model-{number * 5 // len(named)}.safetensors" for number, (name, _) in enumerate(named)}
    for file in sorted(set(where.values())):
        part = {n: mx.full(a.shape, 0.01, mx.bfloat16) for n, a in named if where[n] == file}
        mx.save_safetensors(str(folder / file), part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(hub_values(config, "bfloat16")), encoding="utf-8")
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_holds_little_more_than_the_weights(folder: Path, dtype: str) -> None:
    command = [sys.executable, "-c", MEASURE, str(folder), dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["weights"] > (200 << 20) * (1 if dtype == "float32" else 0.5)
    assert found["peak"] <= LIMIT * found["weights"]
    assert 0.9 * found["weights"] <= found["grown"] <= LIMIT * found["weights"]
