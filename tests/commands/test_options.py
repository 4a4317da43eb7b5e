"""Options that commands share, and settings files: which value wins, and that a misspelt key is refused."""

import argparse
import gc
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.config import ModelConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub_cache import checkpoint_name
from tests.video.clips import make_clip
from tui import cli
from tui.commands.options import add_model_arguments, fill_in, resolve_settings
from tui.commands.play import VIEW, add_arguments, add_options

pytestmark = pytest.mark.usefixtures("collecting")


@pytest.mark.parametrize(
    ("style", "words", "warns"),
    [
        ("training", ["--query", "in rhyme"], True),
        ("training", [], False),
        ("inference", ["--query", "in rhyme"], False),
    ],
)
def test_a_query_that_the_template_has_no_place_for_is_warned_of(
    style: str, words: list[str], warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "stream.yaml"
    settings.write_text(f"style: {style}\n")
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    config, folder = resolve_settings(parser.parse_args([*words, "--config", str(settings)]))
    warning = (
        f"svm-tui: --query has no effect: the training template of {checkpoint_name(folder)} has no query; "
        "ask questions in the player with /.\n"
    )
    assert capsys.readouterr().err == (warning if warns else "")
    assert (config.query == "in rhyme") is bool(words)


def test_a_player_that_follows_another_machine_collects_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    collecting: list[bool] = []

    def follow(*_: object) -> bool:
        collecting.append(gc.isenabled())
        gc.enable()
        return True

    monkeypatch.setenv("MLX_RANK", "1")
    monkeypatch.setattr("tui.commands.play.run_as_follower", follow)
    assert cli.main(["play", "clip.mp4"]) == 0
    assert collecting == [True]


def settled(settings: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["clip.mp4", *words])
    fill_in(args, add_options, settings, VIEW)
    return args


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return tmp_path / "player.yaml"


def test_without_a_file_the_defaults_hold(settings: Path) -> None:
    args = settled(settings)
    assert (args.pace, args.start, args.loop, args.picture, args.theme) == ("live", 0.0, False, "auto", "floodlight")
    assert (args.ckpt, args.fps, args.out) == (None, None, None)


def test_the_file_wins_over_defaults_and_the_command_line_over_both(settings: Path) -> None:
    settings.write_text("pace: every\nstart: 3\npicture: false\nloop: true\nckpt: run1\nfps: 4\nquery: in rhyme\n")
    args = settled(settings, "--start", "5", "--picture")
    assert (args.pace, args.start, args.picture, args.loop) == ("every", 5.0, "auto", True)
    assert (args.ckpt, args.fps, args.query, args.theme) == ("run1", 4, "in rhyme", "floodlight")


@pytest.mark.parametrize(
    ("line", "words", "picture"),
    [
        ("picture: sixel", [], "sixel"),
        # YAML reads `off` as false.
        ("picture: off", [], "off"),
        ("picture: true", [], "auto"),
        ("picture: off", ["--picture", "kitty"], "kitty"),
        ("picture: kitty", ["--no-picture"], "off"),
        ("picture: kitty", ["--picture", "off"], "off"),
    ],
)
def test_how_the_picture_is_drawn_is_an_option(settings: Path, line: str, words: list[str], picture: str) -> None:
    settings.write_text(line)
    assert settled(settings, *words).picture == picture


def test_a_null_is_no_setting(settings: Path) -> None:
    settings.write_text("pace:\n")
    assert settled(settings).pace == "live"


def test_keys_are_taken_as_textual_calls_them(settings: Path) -> None:
    settings.write_text(
        "keys:\n  play: x, ?\n  help: f1\n  find-next: N\n  find-previous: n\n  seek-50: 5\n  faster: +\n"
    )
    keys = {"play": "x,question_mark", "help": "f1", "find-next": "N", "find-previous": "n", "seek-50": "5"}
    assert settled(settings).keys == keys | {"faster": "plus"}
    settings.write_text("keys:\n")
    assert settled(settings).keys == {}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("loop: true\npase: every", ":2: there is no setting 'pase'; did you mean 'pace'?"),
        ("kv_bits: 8", ":1: there is no setting 'kv_bits'; did you mean 'kv-bits'?"),
        ("3: 4", ":1: there is no setting '3'."),
        ("pace: slow", ":1: pace: invalid choice: 'slow'"),
        ("start: soon", ":1: start: invalid float value"),
        ("picture: 3", ":1: picture: invalid choice: '3' (choose from "),
        ("loop: 3", ":1: loop is 3; it must be true or false."),
        ("fps: true", ":1: fps: expected one argument."),
        ("fps: false", ":1: fps is False; it is not a switch and needs a value."),
        ("out: x.vtt", ":1: there is no setting 'out'"),
        ("keys: x", ":1: keys is 'x'; it must be a mapping of actions to keys, such as 'play: x'."),
        ("loop: true\nkeys: {plya: x}", ":2: keys: there is no setting 'plya'; did you mean 'play'?"),
        ("keys: {play: ctl+x}", ":1: keys: play is 'ctl+x'; it must be a key such as x, space, f5 or ctrl+k."),
        ("keys: {play: }", ":1: keys: play is None; it must be a key"),
        ("keys: {play: 'x,,y'}", ":1: keys: play is 'x,,y'; it must be a key"),
        ("keys: {play: true}", ":1: keys: play is True; it must be a key"),
        ("keys: {play: n}", ":1: keys: 'n' is for both 'play' and 'find-next'; give one another key."),
        ("keys: {play: '?'}", ":1: keys: 'question_mark' is for both 'play' and 'help'; give one another key."),
        ("keys:\n  play: x\n  pley: x", ":3: keys: there is no setting 'pley'; did you mean 'play'?"),
        ("keys:\n  help: x\n  play: n", ":3: keys: 'n' is for both 'play' and 'find-next'"),
        ("keys:\n  help: x\n  play: x", ":1: keys: 'x' is for both 'play' and 'help'"),
        ("- pace", " holds a list"),
        ("pace: [", " is not YAML"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(settings: Path, text: str, warning: str) -> None:
    settings.write_text(text)
    with pytest.raises(SvmError) as refused:
        settled(settings)
    assert str(refused.value).startswith(f"{settings}{warning}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        ["infer", "{clip}", "--config", "{config}"],
        ["validate", "--matches", "1", "--config", "{config}"],
        ["doctor", "--ckpt", "{checkpoint}", "--config", "{config}"],
        ["bench", "--config", "{config}"],
        ["infer", "{clip}", "--ckpt", "{own}"],
        ["play", "{clip}", "--config", "{config}"],
        ["play", "{clip}", "--ckpt", "{own}"],
        ["play", "{clip}"],
    ],
    ids=" ".join,
)
def test_a_misspelt_setting_is_refused_by_every_command(
    words: list[str],
    untrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each file has its misspelt key on line 3; the last case has it in player.yaml."""
    named = {"config": tmp_path / "c.yaml", "own": tmp_path / "own" / "stream.yaml", "player": settings_path(tmp_path)}
    stream = "# A comment.\nfps: 2\nwindwo: 4\n"
    for path in named.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stream)
    if words[0] == "bench":
        named["config"].write_text("model: {}\nstream:\n  windwo: 4\n")
    if len(words) > 2:
        named["player"].unlink()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("tui.commands.play.interactive", lambda: True)
    clip = make_clip(tmp_path / "clip.mp4", count=10, rate=10)
    places = {"clip": clip, "checkpoint": untrained, "config": named["config"], "own": named["own"].parent}
    assert cli.main([word.format(**places) for word in words]) == 2
    said = capsys.readouterr().err
    assert any(f"{path}:3: there is no setting" in said for path in named.values()), said
    assert said.count("\n") == 1
    assert len(words) == 2 or "did you mean 'window'?" in said


def settings_path(folder: Path) -> Path:
    return folder / "state" / "svm-tui" / "player.yaml"


@pytest.mark.parametrize("unknown", [{"windwo": 4}, {"text_config": {"hiden_size": 3}}, {"_name_or_path": "x"}])
def test_a_hub_s_config_may_have_keys_of_its_own(unknown: dict[str, Any]) -> None:
    assert ModelConfig.from_dict(unknown) == ModelConfig()
