"""The report of `bench`: what it contains, and how the modes differ."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from streaming_vlm_mlx.config import TextConfig
from streaming_vlm_mlx.eval.bench import frames_of, read_bench_config
from tui import cli

SMALL = {
    "height": 56,
    "width": 84,
    "model": {
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 151680,
            "mrope_section": [2, 3, 3],
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "fullatt_block_indexes": [0],
            "out_hidden_size": 32,
        },
    },
    "stream": {
        "window": 2,
        "text_round": 2,
        "sink": 4,
        "slide": 4,
        "pixels": {"min_pixels": 784},
        "sampling": {"max_new_tokens": 3},
    },
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def test_the_json_holds_every_second(config, tmp_path, capsys):
    out = tmp_path / "b.json"
    assert (
        cli.main(["bench", "--config", str(config), "--mode", "streaming", "--seconds", "6", "--json", str(out)]) == 0
    )
    report = json.loads(out.read_text())
    assert report["settings"]["model"]["text_config"]["hidden_size"] == 32
    assert report["machine"]["versions"]["mlx"]
    seconds = report["seconds"]
    assert [s["index"] for s in seconds] == list(range(6))
    assert {"tokens", "cache_tokens", "cache_bytes", "timings", "memory"} <= set(seconds[0])
    assert all(second["timings"]["total_ms"] > 0 < second["memory"]["process"] for second in seconds)
    assert len({s["cache_bytes"] for s in seconds}) == 1
    assert "streaming" in capsys.readouterr().out


def test_full_attention_grows_and_streaming_does_not(config, tmp_path, capsys):
    out = tmp_path / "b.json"
    words = ["bench", "--config", str(config), "--seconds", "8", "--json", str(out), "--plot", str(tmp_path / "b.png")]
    assert cli.main(words) == 0
    runs = {run["mode"]: [s["cache_tokens"] for s in run["seconds"]] for run in json.loads(out.read_text())["runs"]}
    assert set(runs) == {"full", "window", "recompute", "streaming"}
    assert runs["full"] == sorted(set(runs["full"]))
    assert runs["streaming"][-1] == runs["streaming"][-2] == runs["recompute"][-1]
    assert runs["window"][2] == runs["window"][4] < runs["window"][3]
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()


def test_frames_move_and_come_from_the_seed(config):
    first = read_bench_config(config)
    assert (frames_of(first, 0) == frames_of(first, 0)).all()
    assert (frames_of(first, 0) != frames_of(first, 1)).any()


def test_shipped_benchmarks_read(pytestconfig):
    for path in sorted((pytestconfig.rootpath / "configs" / "bench").glob("*.yaml")):
        assert isinstance(read_bench_config(path).model.text_config, TextConfig)
        assert read_bench_config(path).stream.window == 8


def test_a_benchmark_without_a_model_is_refused(tmp_path, capsys):
    (tmp_path / "none.yaml").write_text("height: 56\n")
    assert cli.main(["bench", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "has no part 'model'" in capsys.readouterr().err


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(tmp_path, capsys):
    path = tmp_path / "small.yaml"
    model = SMALL["model"] | {"text_config": SMALL["model"]["text_config"] | {"vocab_size": 4096}}
    path.write_text(yaml.safe_dump(SMALL | {"model": model}))
    assert cli.main(["bench", "--config", str(path), "--mode", "streaming", "--seconds", "2"]) == 2
    assert "vocab_size" in capsys.readouterr().err


def test_the_script_for_devices_measures_plain_and_packed_weights(tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "bench_device.py"
    text, vision = SMALL["model"]["text_config"], SMALL["model"]["vision_config"]
    # Packed weights come in groups of 64.
    sizes = {"hidden_size": 64, "intermediate_size": 64}
    model = {"text_config": {**text, **sizes, "mrope_section": [4, 6, 6]}}
    model["vision_config"] = {**vision, "out_hidden_size": 64}
    wide, out = tmp_path / "wide.yaml", tmp_path / "device.json"
    wide.write_text(yaml.safe_dump({**SMALL, "model": model}))
    command = [sys.executable, str(script), "--config", str(wide), "--seconds", "2", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, packed = json.loads(out.read_text())["rows"]
    assert (plain["weights"], packed["weights"], packed["model"]) == ("float32", "4 bits", "wide")
    assert plain["cache_tokens"] == packed["cache_tokens"] > 0
    # A weight has 4 bits, and a scale and a bias of its group.
    assert packed["read_mb"] < plain["read_mb"] / 4
    # Two measurements, of which another program may slow one down.
    assert plain["bandwidth_share"] > 0
    none = subprocess.run([sys.executable, str(script), "--seconds", "0"], capture_output=True, text=True, check=False)
    assert (none.returncode, none.stderr) == (2, "bench_device: --seconds is 0; it must be 1 or more.\n")


def test_still_video_is_left_out_of_a_stream_but_not_beside_other_programs(config, tmp_path, capsys):
    out = tmp_path / "still.json"
    words = ["bench", "--config", str(config), "--seconds", "2", "--drop-still", "255", "--json", str(out)]
    assert cli.main([*words, "--mode", "streaming"]) == 0
    run = json.loads(out.read_text())
    first, second = run["seconds"]
    assert first["video_tokens"] > 0
    assert second["video_tokens"] == 0
    assert second["still_tokens"] == first["video_tokens"] + first["still_tokens"]
    capsys.readouterr()
    assert cli.main(["bench", "--peers", "--drop-still", "8"]) == 2
    assert "--peers goes with" in capsys.readouterr().err
