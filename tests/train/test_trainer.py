"""Whole runs: they learn, they stop and go on, they leave what can be played."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import load_checkpoint
from streaming_vlm_mlx.stream_settings import read_stream_config
from streaming_vlm_mlx.train.metrics import (
    CheckpointSaved,
    Note,
    Sampled,
    SampledSecond,
    Started,
    Validated,
    read_metrics,
)
from streaming_vlm_mlx.train.setup import train
from tests.train.running import BASE, Heard, run, write_records

HEADS = {"heads": [{"name": "grey", "kind": "picture", "classes": 3}]}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    path = write_records(folder)
    times = np.arange(60) / 10
    for clip in folder.glob("*.mp4"):
        np.savez(clip.with_suffix(".targets.npz"), times=times, grey=(times // 2).astype(int))
    write_records(folder, "valid", clips=1, seconds=3)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_head_losses_fall(records: Path, tmp_path: Path) -> None:
    heard, _ = run(records, tmp_path / "a", schedule={"steps": 30}, checkpointing={"every": 30}, auxiliary=HEADS)
    first, last = heard.steps[0].losses, heard.steps[-1].losses
    assert last["text"] < first["text"] / 4
    assert last["grey"] < first["grey"] * 0.8


@pytest.mark.parametrize("stop", [1, 4])
def test_a_run_that_was_stopped_goes_on_to_the_same_losses(records: Path, tmp_path: Path, stop: int) -> None:
    over: dict[str, Any] = {"optimizer": {"accumulate": 2}, "auxiliary": HEADS}
    whole, _ = run(records, tmp_path / "whole", **over)
    first, progress = run(records, tmp_path / "parts", stop=stop, **over)
    assert progress.step == stop == len(first.steps)
    rest, progress = run(records, tmp_path / "parts", resume=True, **over)
    assert progress.step == len(whole.steps) == 6
    for key in ("text", "grey"):
        found = [step.losses[key] for step in [*first.steps, *rest.steps]]
        assert found == pytest.approx([step.losses[key] for step in whole.steps], abs=1e-5)
    assert len({round(loss, 4) for loss in whole.losses}) == 6
    assert rest.of(Started)[0].step == stop
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_crashed_resumes_from_its_last_checkpoint(records: Path, tmp_path: Path) -> None:
    whole, _ = run(records, tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "steps" / "00000006")
    rest, _ = run(records, tmp_path / "a", resume=True)
    assert [step.step for step in rest.steps] == [4, 5, 6]
    assert rest.losses == pytest.approx(whole.losses[3:], abs=1e-5)
    assert [line["step"] for line in read_metrics(tmp_path / "a" / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_what_a_run_leaves(records: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    heard, _ = run(records, out, checkpointing={"every": 2, "keep": 2}, auxiliary=HEADS)
    playable = ["config.json", "model.safetensors", "stream.yaml", "tokenizer.json", "vocabulary.json"]
    assert names(out) == sorted([*playable, "loss.png", "metrics.jsonl", "steps", "train.yaml", "training"])
    assert names(out / "training") == ["heads.safetensors"]
    assert names(out / "steps") == ["00000004", "00000006"]
    assert names(out / "steps" / "00000006") == sorted([*playable, "training"])
    assert [saved.step for saved in heard.of(CheckpointSaved)] == [2, 4, 6]
    newest, own = (load_checkpoint(folder, mx.float32) for folder in (out / "steps" / "00000006", out))
    for (name, array), (_, same) in zip(newest.model.named_arrays(), own.model.named_arrays(), strict=True):
        assert mx.array_equal(array, same), name
        assert not name.startswith("heads")
    assert own.stream == BASE.training_stream() != StreamConfig()
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_stream_is_reported_what_the_settings_say(records: Path, tmp_path: Path) -> None:
    run(records, tmp_path / "a", schedule={"steps": 2}, stream={"window": 2, "sampling": {"repetition_penalty": 1.0}})
    stream = read_stream_config(tmp_path / "a")
    assert (stream.window, stream.text_round, stream.sampling.repetition_penalty) == (2, 3, 1.0)


def test_a_run_begins_with_a_checkpoint(records: Path, tmp_path: Path) -> None:
    before, _ = run(records, tmp_path / "a", schedule={"steps": 15})
    after, _ = run(records, tmp_path / "b", model={"checkpoint": str(tmp_path / "a")}, freeze=["visual.*"])
    assert max(after.losses) < before.losses[0] / 2
    old, new = (dict(load_checkpoint(tmp_path / name, mx.float32).model.named_arrays()) for name in ("a", "b"))
    still = {name for name, array in new.items() if mx.array_equal(array, old[name])}
    assert still == {name for name in new if name.startswith("visual.")}


def test_a_run_resumes_without_the_checkpoint_that_it_began_with(records: Path, tmp_path: Path) -> None:
    run(records, tmp_path / "a", schedule={"steps": 2})
    begins = {"model": {"checkpoint": str(tmp_path / "a")}, "checkpointing": {"every": 1}}
    run(records, tmp_path / "b", stop=1, **begins)
    shutil.rmtree(tmp_path / "a")
    rest, progress = run(records, tmp_path / "b", resume=True, **begins)
    assert (rest.steps[0].step, progress.step) == (2, 6)


@pytest.mark.parametrize(
    ("place", "more", "random"), [("a", [{"name": "dark", "kind": "place"}], ["dark"]), ("a/steps/00000002", [], [])]
)
def test_heads_go_on_with_the_checkpoint_that_they_fit(
    records: Path, tmp_path: Path, place: str, more: list[dict[str, str]], random: list[str]
) -> None:
    still: dict[str, Any] = {"schedule": {"steps": 2, "warmup_steps": 0}, "optimizer": {"learning_rate": 1e-12}}
    run(records, tmp_path / "a", auxiliary=HEADS, seed=1, **still)
    heads, model = {"heads": [*HEADS["heads"], *more]}, {"checkpoint": str(tmp_path / place)}
    heard, _ = run(records, tmp_path / "b", model=model, auxiliary=heads, **still)
    old, new = (mx.load(str(tmp_path / name / "training" / "heads.safetensors")) for name in ("a", "b"))
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    assert all(mx.allclose(new[name], array, atol=1e-7) for name, array in old.items())
    named = [note.text.rpartition(": ")[2] for note in heard.of(Note) if "start at random" in note.text]
    assert named == random


def test_damaged_heads_are_named(records: Path, tmp_path: Path) -> None:
    run(records, tmp_path / "a", schedule={"steps": 2}, auxiliary=HEADS)
    (tmp_path / "a" / "training" / "heads.safetensors").write_bytes(b"")
    with pytest.raises(SvmError, match="is damaged; remove it to start with random heads"):
        run(records, tmp_path / "b", model={"checkpoint": str(tmp_path / "a")}, auxiliary=HEADS)


class TestEvaluation:
    """At this learning rate the validation loss rises from step 4 to step 8."""

    def over(self, records: Path, **validation: Any) -> dict[str, Any]:
        return {
            "validation": {"records": [str(records.with_name("valid.jsonl"))], **validation},
            "optimizer": {"learning_rate": 0.05},
            "schedule": {"steps": 8, "warmup_steps": 0, "final_fraction": 1.0},
            "checkpointing": {"every": 2, "keep": 4},
        }

    def test_the_best_is_played(self, records: Path, tmp_path: Path) -> None:
        heard, progress = run(records, tmp_path / "a", **self.over(records))
        seen = heard.of(Validated)
        losses = [event.losses["text"] for event in seen]
        best_loss = losses.index(min(losses))
        assert [event.step for event in seen] == [2, 4, 6, 8]
        assert [event.is_best for event in seen] == [loss == min(losses[: n + 1]) for n, loss in enumerate(losses)]
        assert progress.best_loss == losses[best_loss]
        assert 0 < best_loss < 3, "it was meant to get better, then worse"
        step_folder = tmp_path / "a" / "steps" / f"{seen[best_loss].step:08d}"
        files = (step_folder / "model.safetensors", tmp_path / "a" / "model.safetensors")
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_a_run_ends_when_it_gets_no_better(self, records: Path, tmp_path: Path) -> None:
        heard, progress = run(records, tmp_path / "a", **self.over(records, patience=1))
        assert [event.is_best for event in heard.of(Validated)] == [True, True, False]
        assert progress.step == 6
        assert "no lower validation loss in 1 validations" in heard.of(Note)[-1].text

    def test_patience_outlives_a_break(self, records: Path, tmp_path: Path) -> None:
        over = self.over(records, patience=2)
        run(records, tmp_path / "a", stop=7, **over)
        _, progress = run(records, tmp_path / "a", resume=True, **over)
        assert (progress.step, progress.since_best) == (8, 2)

    def test_it_is_the_loss_that_training_would_see(self, records: Path, tmp_path: Path) -> None:
        over: dict[str, Any] = {
            "validation": {"records": [str(records)]},
            "data": {"batches": {"batch_size": 9, "pool": 9}},
            "optimizer": {"learning_rate": 1e-12},
            "checkpointing": {"every": 1},
            "auxiliary": HEADS,
        }
        heard, _ = run(records, tmp_path / "a", schedule={"steps": 1, "warmup_steps": 0}, **over)
        (seen,) = heard.of(Validated)
        assert seen.losses == pytest.approx(heard.steps[0].losses, abs=1e-5)
        assert seen.losses.keys() == {"text", "grey"}

    def test_a_part_may_do(self, records: Path, tmp_path: Path) -> None:
        losses = []
        for limit in (None, 1, 9):
            over = self.over(records, batches=limit)
            over["validation"]["records"] = [str(records)]
            over["schedule"]["steps"] = 1
            heard, _ = run(records, tmp_path / str(limit), **over)
            losses.append(heard.of(Validated)[0].losses["text"])
        assert losses[0] == losses[2] != pytest.approx(losses[1], abs=1e-3)


class TestRefusals:
    def refused(self, records: Path, out: Path, **over: Any) -> str:
        with pytest.raises(SvmError) as caught:
            run(records, out, **over)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_nothing_is_overwritten(self, records: Path, tmp_path: Path) -> None:
        run(records, tmp_path / "a", schedule={"steps": 2})
        assert "holds a run at step 2; continue with --resume" in self.refused(records, tmp_path / "a")
        shutil.rmtree(tmp_path / "a" / "steps")
        assert "holds a checkpoint" in self.refused(records, tmp_path / "a")
        (tmp_path / "file").write_text("")
        assert "is a file" in self.refused(records, tmp_path / "file")

    def test_there_must_be_something_to_go_on_with(self, records: Path, tmp_path: Path) -> None:
        assert "holds no run to resume" in self.refused(records, tmp_path / "a", resume=True)

    def test_other_data_cannot_be_resumed(self, records: Path, tmp_path: Path) -> None:
        run(records, tmp_path / "a", stop=1)
        other = {"data": {"stride": 1}}
        assert "was trained on 6 windows, now there are 8" in self.refused(
            records, tmp_path / "a", resume=True, **other
        )
        assert "with seed 0, not 1" in self.refused(records, tmp_path / "a", resume=True, seed=1)

    def test_other_heads_cannot_be_resumed(self, records: Path, tmp_path: Path) -> None:
        run(records, tmp_path / "a", stop=1, auxiliary=HEADS)
        other = {"heads": [{"name": "grey", "kind": "picture", "classes": 5}]}
        assert "holds other vision heads" in self.refused(records, tmp_path / "a", resume=True, auxiliary=other)

    def test_damaged_savings_are_named(self, records: Path, tmp_path: Path) -> None:
        run(records, tmp_path / "a", stop=1)
        training = tmp_path / "a" / "steps" / "00000001" / "training"
        optimizer = (training / "optimizer.safetensors").read_bytes()
        (training / "optimizer.safetensors").write_bytes(optimizer[:50])
        assert "optimizer.safetensors is damaged; remove" in self.refused(records, tmp_path / "a", resume=True)
        state = json.loads((training / "state.json").read_text())
        (training / "state.json").write_text(json.dumps(state | {"version": 3}))
        assert "has version 3" in self.refused(records, tmp_path / "a", resume=True)
        (training / "state.json").write_text('{"version"')
        assert "state.json is damaged; remove" in self.refused(records, tmp_path / "a", resume=True)

    def test_no_records(self, tmp_path: Path) -> None:
        assert "absent.jsonl" in self.refused(tmp_path / "absent.jsonl", tmp_path / "a")
        assert "no training records" in self.refused(tmp_path, tmp_path / "a", data={"records": []})
        assert not (tmp_path / "a").exists()

    def test_sizes_that_do_not_fit(self, records: Path, tmp_path: Path) -> None:
        model: dict[str, Any] = {"config": {"text_config": {"hidden_size": 64, "mrope_section": [2, 2, 4]}}}
        assert "out_hidden_size 32" in self.refused(records, tmp_path / "a", model=model)
        model = {"config": {"text_config": {"vocab_size": 64}}}
        assert "follows from model.vocab_size" in self.refused(records, tmp_path / "a", model=model)
        assert "no trainable parameter is left" in self.refused(records, tmp_path / "a", freeze=["*"])
        blind = {"config": {**BASE.model.config, "vision_config": None}}
        assert "no vision tower" in self.refused(records, tmp_path / "a", model=blind, auxiliary=HEADS)


class TestSamples:
    def test_they_leave_the_losses_as_they_are(self, records: Path, tmp_path: Path) -> None:
        losses = []
        for every in (None, 0, 1):
            over: dict[str, Any] = {"validation": {"records": [str(records)], "sample_every": every}}
            over["stream"] = {"sampling": {"temperature": 1.0}}
            heard, _ = run(records, tmp_path / str(every), **over)
            losses.append(heard.losses)
            assert [sample.step for sample in heard.of(Sampled)] == {None: [], 0: [3, 6], 1: [1, 2, 3, 4, 5, 6]}[every]
        assert losses[0] == losses[1] == losses[2]

    def test_a_resumed_run_has_the_samples_of_an_unbroken_one(self, records: Path, tmp_path: Path) -> None:
        over: dict[str, Any] = {"validation": {"records": [str(records)], "sample_every": 1, "sample_seconds": 2}}
        run(records, tmp_path / "a", **over)
        whole = (tmp_path / "a" / "samples.jsonl").read_text()
        shutil.rmtree(tmp_path / "a" / "steps" / "00000006")
        run(records, tmp_path / "a", resume=True, **over)
        assert (tmp_path / "a" / "samples.jsonl").read_text() == whole
        assert len(whole.splitlines()) == 6

    def test_commentary_is_generated_beside_the_reference(self, tmp_path: Path) -> None:
        path = write_records(tmp_path, clips=1, seconds=3)
        over: dict[str, Any] = {"schedule": {"steps": 40}, "checkpointing": {"every": 40}}
        over["stream"] = {"sampling": {"repetition_penalty": 1.0}}
        heard, _ = run(path, tmp_path / "a", validation={"records": [str(path)], "sample_seconds": 2}, **over)
        (sample,) = heard.of(Sampled)
        assert sample.video == str(tmp_path / "train0.mp4")
        assert sample.seconds == (SampledSecond(0.0, 1.0, "red", "red"), SampledSecond(1.0, 2.0, "serves", "serves"))

    @pytest.mark.parametrize("damage", [lambda clip: clip.unlink(), lambda clip: clip.write_bytes(b"")])
    def test_a_clip_that_cannot_be_read_is_a_note(self, tmp_path: Path, damage: Any) -> None:
        path, valid = write_records(tmp_path), write_records(tmp_path, "valid", clips=1, seconds=3)
        damage(tmp_path / "valid0.mp4")
        heard, progress = run(path, tmp_path / "a", validation={"records": [str(valid)], "sample_every": 2})
        assert progress.step == 6
        assert not heard.of(Sampled)
        notes = [note.text for note in heard.of(Note) if "no sample was generated" in note.text]
        assert len(notes) == 3
        assert all("valid0.mp4" in text for text in notes)

    def test_a_model_without_a_vision_tower_is_sampled(self, records: Path, tmp_path: Path) -> None:
        blind = {"config": {**BASE.model.config, "vision_config": None}}
        heard, _ = run(records, tmp_path / "a", model=blind, validation={"records": [str(records)]})
        assert len(heard.of(Sampled)) == 2


def test_a_second_run_in_one_folder_is_refused(records: Path, tmp_path: Path) -> None:
    out, refused = tmp_path / "a", list[str]()

    def run_again() -> bool:
        if out.is_dir() and not refused:
            for resume in (False, True):
                with pytest.raises(SvmError) as caught:
                    run(records, out, resume=resume)
                refused.append(str(caught.value))
        return False

    heard = Heard()
    config = BASE.merged({"data": {"records": [str(records)]}})
    train(config, out, False, mx.float32, 1, replace(heard.callbacks(), stopped=run_again))
    assert len(heard.losses) == 6
    assert len(refused) == 2
    assert all(f"is in use by another training run, process {os.getpid()};" in text for text in refused)
    assert not (out / "train.lock").exists()


def test_the_lock_of_a_dead_process_is_taken_over(records: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.lock").write_text("1\n")
    heard, _ = run(records, tmp_path / "a")
    assert len(heard.losses) == 6
    assert not (tmp_path / "a" / "train.lock").exists()


def test_an_interrupt_removes_the_lock(records: Path, tmp_path: Path) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    config = BASE.merged({"data": {"records": [str(records)]}})
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "a", False, mx.float32, 1, replace(Heard().callbacks(), stopped=interrupt))
    assert not (tmp_path / "a" / "train.lock").exists()


def test_windows_without_a_video_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write_records(tmp_path)
    (tmp_path / "train0.mp4").write_bytes(b"")
    heard, progress = run(path, tmp_path / "a", data={"batches": {"batch_size": 1}})
    assert progress.step == 6
    notes = [note.text for note in heard.of(Note)]
    assert sum(text.startswith(f"{path}:1: skipped: ") and "train0.mp4" in text for text in notes) == 1
    assert notes[-1] == "3 of 6 training windows were skipped; see the messages above."
    (tmp_path / "train1.mp4").unlink()
    with pytest.raises(SvmError, match="no window of a whole epoch has a target"):
        run(path, tmp_path / "b")


def test_a_damaged_sidecar_teaches_no_head(tmp_path: Path) -> None:
    path = write_records(tmp_path, clips=1)
    (tmp_path / "train0.targets.npz").write_bytes(b"")
    heard, _ = run(path, tmp_path / "a", auxiliary=HEADS, schedule={"steps": 2})
    assert all(step.losses.keys() == {"text"} for step in heard.steps)
    assert any("no targets for the vision heads" in note.text for note in heard.of(Note))


def test_heads_can_come_first(records: Path, tmp_path: Path) -> None:
    heard, _ = run(records, tmp_path / "a", auxiliary=HEADS | {"first_steps": 2}, schedule={"steps": 4})
    assert [set(step.losses) for step in heard.steps] == [{"grey"}, {"grey"}, {"text", "grey"}, {"text", "grey"}]
