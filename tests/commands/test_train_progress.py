"""The progress of a training run: its status line, its plain lines, its live display."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from streaming_vlm_mlx.train.metrics import (
    CheckpointSaved,
    Event,
    Note,
    Sampled,
    SampledSecond,
    Stage,
    Started,
    StepDone,
    Validated,
)
from tui.train_progress import WIDTH, RunMetrics, downsample, event_lines, live_view, plain_view, render, status_line

SAMPLE = Sampled(2, "a.mp4", (SampledSecond(3.0, 4.0, "wide", "and in"), SampledSecond(4.0, 5.0, "", "out")))


def step(number: int, loss: float, **over: Any) -> StepDone:
    values: dict[str, Any] = {
        "losses": {"text": loss},
        "learning_rate": 1e-3,
        "grad_norm": 2.0,
        "video_seconds": 16,
        "tokens": 800,
        "epoch": 0,
        "started_at": 2.0 * number - 1.5,
        "ended_at": 2.0 * number,
        "memory": 1_300_000_000,
    }
    return StepDone(number, **(values | over))


def metrics(*events: Event) -> RunMetrics:
    made = RunMetrics()
    for event in (Started(0, 100, 7, (5, 10)), *events):
        made.add(event)
    return made


def test_speed_counts_the_waits() -> None:
    made = metrics(step(1, 4.0), step(2, 3.0), step(3, 2.0))
    assert made.seconds_a_step == pytest.approx(2.0)
    assert made.video_speed == pytest.approx(8.0)
    assert made.token_speed == pytest.approx(400.0)
    assert made.waiting == pytest.approx(0.25)
    assert made.remaining == pytest.approx(2.0 * 97)
    assert made.loss == pytest.approx(3.0)


def test_a_validation_and_a_checkpoint_do_not_count_as_waits() -> None:
    late = {"started_at": 104.5, "ended_at": 106.0}
    made = metrics(
        step(1, 4.0), step(2, 3.0), Stage("validation", 0, 4.0), CheckpointSaved(2, Path("a")), step(3, 2.0, **late)
    )
    assert made.seconds_a_step == pytest.approx(1.75)
    assert made.remaining == pytest.approx(1.75 * 97)
    assert made.waiting == pytest.approx(0.5 / 3.5)
    saved = metrics(step(1, 4.0), step(2, 3.0), CheckpointSaved(2, Path("a")), step(3, 2.0, **late))
    assert saved.seconds_a_step == pytest.approx(1.75)


def test_a_run_without_a_step_has_metrics() -> None:
    made = metrics()
    assert (made.video_speed, made.waiting, made.remaining, made.curve) == (0.0, 0.0, 0.0, [])


def test_the_curve_has_means_of_equally_many_steps() -> None:
    assert downsample([1.0, 2.0, 3.0, 4.0, 5.0], 2) == [1.5, 4.0]
    assert downsample([1.0, 2.0], 5) == [1.0, 2.0]
    assert downsample([], 5) == []
    made = metrics(*(step(number, float(number)) for number in range(1, 1001)))
    assert len(made.curve) == WIDTH
    assert sum(made.curve) / WIDTH == pytest.approx(500.5, rel=0.01)


def test_the_status_line_has_what_a_trainer_expects() -> None:
    made = metrics(step(1, 4.0), step(2, 3.0), Validated(2, {"text": 2.41}, True), step(3, 2.0))
    assert status_line(made) == (
        "step 3/100 · loss 3.000 · val 2.410 · lr 1.0e-03 · 8 s video/s · 400 tok/s · 1.3 GB · 0:03:14 left"
    )


def test_the_first_step_has_a_status_line() -> None:
    assert status_line(metrics(step(1, 4.0))) == (
        "step 1/100 · loss 4.000 · lr 1.0e-03 · 11 s video/s · 533 tok/s · 1.3 GB · 0:02:28 left"
    )


def test_plain_lines_come_every_ten_seconds_of_the_runs_clock() -> None:
    file = io.StringIO()
    show = plain_view(file)
    show(Stage("loading the model", 0, 0.0))
    show(Started(0, 20, 7, (10, 10)))
    show(Stage("preparing the first batch", 0, 0.1))
    for number in range(1, 21):
        show(step(number, 4.0))
    for done in range(4):
        show(Stage("validation", done, 44.0 + 6 * done))
    heads = [line.split(" · ")[0] for line in file.getvalue().splitlines()]
    assert heads == [
        "loading the model …",
        "10 parameters; 7 windows; steps 1 to 20",
        "preparing the first batch …",
        "step 1/20",
        "step 6/20",
        "step 11/20",
        "step 16/20",
        "step 20/20",
        "validation",
        "validation",
    ]
    assert file.getvalue().endswith("validation · 1 batches\nvalidation · 3 batches\n")


def test_a_stage_before_the_first_step_is_the_status() -> None:
    assert status_line(metrics(Stage("preparing the first batch", 0, 0.0))) == "preparing the first batch …"


def test_a_slow_run_has_a_line_for_each_step() -> None:
    file = io.StringIO()
    show = plain_view(file)
    show(Started(0, 20, 7, (10, 10)))
    for number in range(1, 5):
        show(step(number, 4.0, started_at=30.0 * number, ended_at=30.0 * number + 29))
    assert [line.split(" ·")[0] for line in file.getvalue().splitlines()[1:]] == [f"step {n}/20" for n in range(1, 5)]


def test_the_live_display_shows_status_details_and_curve() -> None:
    made = metrics(
        step(1, 4.0),
        step(2, 3.0, losses={"text": 3.0, "ball": 0.5}),
        Validated(2, {"text": 3.25}, True),
        CheckpointSaved(2, Path("runs/a/steps/2")),
        Stage("validation", 3, 5.0),
    )
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(made))
    shown = console.export_text()
    for part in ("step 2/100", "0:03:16 left", "ball loss", "val 3.250", "8 s video/s", "steps/2", "validation", "█"):
        assert part in shown


def test_a_terminal_keeps_samples_above_the_status() -> None:
    file = io.StringIO()
    with live_view(Console(width=120, file=file, force_terminal=True)) as show:
        for event in (Started(0, 9, 7, (5, 10)), step(1, 4.0), SAMPLE):
            show(event)
    assert file.getvalue().index("generated: wide") < file.getvalue().rindex("step 1/9")


def test_events_with_lines_of_their_own() -> None:
    lines = [*event_lines(Note("careful")), *event_lines(Started(3, 9, 7, (5, 10)))]
    lines += event_lines(Validated(4, {"text": 1.5, "ball": 0.5}, False))
    lines += event_lines(SAMPLE)
    assert lines == [
        "careful",
        "10 parameters, 5 of them trainable; 7 windows; steps 4 to 9",
        "step 4: validation loss 1.5000, ball loss 0.5000",
        "step 2: sample of a.mp4",
        "  3-4 s  generated: wide",
        "         reference: and in",
        "  4-5 s  generated: (silence)",
        "         reference: out",
    ]


def test_markup_and_controls_in_a_name_are_shown_as_they_are_written() -> None:
    made = metrics(step(1, 4.0), CheckpointSaved(1, Path("run[bold red]\x1b[35m\u202e")))
    file = io.StringIO()
    Console(width=120, file=file, force_terminal=True).print(render(made))
    assert r"run[bold red]\x1b[35m\u202e" in re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())
    assert not set("\u202e") & set(file.getvalue())
