from pathlib import Path

import pytest
import yaml

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.config_io import read_config
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.config import HeadConfig, TrainConfig

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.yaml"))


def read(tmp_path: Path, text: str) -> TrainConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return read_config(path, TrainConfig)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_examples_are_read(path: Path) -> None:
    config = read_config(path, TrainConfig)
    assert config != TrainConfig()
    assert path.read_text(encoding="utf-8").startswith("# Use ")
    assert TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_parts_are_read(tmp_path: Path) -> None:
    text = """
        data: {records: [a.jsonl, b.jsonl], pixels: {min_pixels: 784}, batches: {batch_size: 3}}
        optimizer: {learning_rate: 1, betas: [0.8, 0.9]}
        auxiliary: {heads: [{name: ball, kind: place}, {name: kit, classes: 10, weight: 0.5}]}
    """
    config = read(tmp_path, text)
    assert config.data.records == ("a.jsonl", "b.jsonl")
    assert config.data.pixels == PixelConfig(min_pixels=784)
    assert config.data.batches.batch_size == 3
    assert config.optimizer.learning_rate == 1.0
    assert config.auxiliary.heads == (HeadConfig("ball", "place"), HeadConfig("kit", classes=10, weight=0.5))


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == TrainConfig()


UNKNOWN = {
    "optimiser: {}": ("optimiser", "optimizer"),
    "optimizer: {lerning_rate: 1}": ("optimizer.lerning_rate", "learning_rate"),
    "data: {pixels: {max_pixel: 5}}": ("data.pixels.max_pixel", "max_pixels"),
    "data: {batches: {size: 5}}": ("data.batches.size", ""),
    "auxiliary: {heads: [{name: ball}, {name: a, clases: 3}]}": ("auxiliary.heads.clases", "classes"),
    "model: {config: {text_config: {hidden: 5}}}": ("model.config.text_config.hidden", "hidden_size"),
    "stream: {sampling: {temprature: 1}}": ("stream.sampling.temprature", "temperature"),
    "1: 2": ("1", ""),
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_a_key_that_is_no_setting_is_named(text: str, tmp_path: Path) -> None:
    key, near = UNKNOWN[text]
    with pytest.raises(SvmError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'run.yaml'}:1: there is no setting '{key}'")
    assert near in message
    assert ("did you mean" in message) == bool(near)


WRONG = {
    "data: 5": "TrainConfig.data is 5",
    "optimizer: {learning_rate: fast}": "OptimizerConfig.learning_rate is 'fast'",
    "optimizer: {learning_rate: true}": "OptimizerConfig.learning_rate is True",
    "optimizer: {betas: [0.9]}": "optimizer.betas is [0.9]",
    "optimizer: {betas: [0.9, 1.0]}": "optimizer.betas is [0.9, 1.0]",
    "optimizer: {accumulate: 0}": "optimizer.accumulate is 0",
    "schedule: {steps: 2.5}": "ScheduleConfig.steps is 2.5",
    "data: {records: train.jsonl}": "DataConfig.records is 'train.jsonl'",
    "freeze: [1]": "TrainConfig.freeze is 1",
    "grad_checkpoint: sometimes": "TrainConfig.grad_checkpoint is 'sometimes'",
    "checkpointing: {every: 0}": "checkpointing.every is 0",
    "auxiliary: {heads: [{kind: place}]}": "'' cannot be a head's name",
    "auxiliary: {heads: [{name: text}]}": "'text' cannot be a head's name",
    "auxiliary: {heads: [{name: a, classes: 1}]}": "a has 1 classes",
    "auxiliary: {heads: [{name: a}, {name: a}]}": "two heads have the same name",
    "auxiliary: {heads: [{name: a, kind: pixel}]}": "HeadConfig.kind is 'pixel'",
    "auxiliary: {first_steps: 5}": "auxiliary.first_steps is 5",
    "stream: {window: 0}": "window is 0",
    "- a": "holds a list",
    "a: [": "is not YAML",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_value_that_does_not_fit_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(SvmError) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "run.yaml") in str(caught.value)
    assert WRONG[text] in str(caught.value)
    assert "\n" not in str(caught.value)


PLACES = {
    "data:\n  seconds: 8\noptimizer:\n  lerning_rate: 1": "4: there is no setting",
    "# a run\n\nfreeze:\n  - 1": "3: TrainConfig.freeze is 1",
    "data:\n  seconds: 8\n  pixels: {min_pixels: 784,\n    max_pixels: many}": "4: PixelConfig.max_pixels is",
    "seed: 1\nauxiliary:\n  heads:\n  - {name: a}\n  - name: b\n    kind: pixel": "6: HeadConfig.kind is 'pixel'",
    "seed: 1\nauxiliary:\n  heads:\n  - {name: a}\n  - {name: a}": "3: auxiliary.heads: two heads",
    "seed: 1\ncheckpointing:\n  keep: 0": "3: checkpointing.keep is 0",
    "seed: 1\nstream:\n  window: 0": "3: window is 0",
    "model:\n  seed: 1\n  config:\n    text_config:\n      hidden_size: wide": "5: TextConfig.hidden_size is 'wide'",
    "model:\n  config:\n    text_config:\n      num_hidden_layers: 0": "4: text_config.num_hidden_layers is 0",
    # A width alone does not say how many heads there are.
    "seed: 1\nmodel:\n  config:\n    text_config: {hidden_size: 194}": "3: config: hidden_size 194 is not a multiple",
    # What a "<<" brings in stands where it was written; a setting of the same name is the one that counts.
    "checkpointing: &often\n  every: 5\nvalidation:\n  <<: *often": "2: there is no setting 'validation.every'",
    "data:\n  batches: &some {pool: few}\nstream: {}\nlora:\n  <<: *some": "2: there is no setting 'lora.pool'",
    "data: &d\n  seconds: 8\n  text_sink: none\nseed: 1": "3: DataConfig.text_sink is 'none'",
    # These few steps alone would be refused, for the warm-up that nobody set.
    "schedule:\n  steps: 10\n  warmup_steps: 5\ncheckpointing:\n  keep: 0": "5: checkpointing.keep is 0",
    # Either alone would do: the part is at fault.
    "seed: 1\nschedule:\n  steps: 50\n  warmup_steps: 60": "2: schedule.warmup_steps is 60",
}


@pytest.mark.parametrize("text", PLACES)
def test_the_line_is_told(text: str, tmp_path: Path) -> None:
    with pytest.raises(SvmError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'run.yaml'}:{PLACES[text]}")


def test_what_overrides_a_merged_value_is_what_counts(tmp_path: Path) -> None:
    text = "optimizer: &o {learning_rate: 0.5}\nschedule: {<<: {steps: never, warmup_steps: 5}, steps: 40}"
    config = read(tmp_path, text)
    assert (config.schedule.steps, config.schedule.warmup_steps) == (40, 5)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SvmError, match=r"absent\.yaml cannot be read"):
        read_config(tmp_path / "absent.yaml", TrainConfig)


def test_the_stream_keeps_the_training_windows() -> None:
    values = {"data": {"seconds": 7, "text_sink": 12, "text_sliding_window": 31, "all_text": True}}
    train_set = TrainConfig.from_dict(values).training_stream()
    assert (train_set.window, train_set.text_round, train_set.style, train_set.all_text) == (7, 7, "training", True)
    assert (train_set.sink, train_set.slide) == (8, 30)
    everything = TrainConfig.from_dict({"data": {"text_sink": 0, "text_sliding_window": 0}}).training_stream()
    assert (everything.sink, everything.slide) == (None, None)
