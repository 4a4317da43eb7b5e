"""The settings file: what it may hold, and what wins."""

import argparse
from pathlib import Path

import pytest

from streaming_vlm_mlx.errors import SvmError
from tui.commands.play import VIEW, add_arguments, add_options
from tui.commands.player_settings import fill_in


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
    assert (args.pace, args.start, args.loop, args.picture, args.theme) == ("live", 0.0, False, True, "floodlight")
    assert (args.ckpt, args.fps, args.out) == (None, None, None)


def test_the_file_wins_over_defaults_and_the_command_line_over_both(settings: Path) -> None:
    settings.write_text("pace: every\nstart: 3\npicture: false\nloop: true\nckpt: run1\nfps: 4\nquery: in rhyme\n")
    args = settled(settings, "--start", "5", "--picture")
    assert (args.pace, args.start, args.picture, args.loop) == ("every", 5.0, True, True)
    assert (args.ckpt, args.fps, args.query, args.theme) == ("run1", 4, "in rhyme", "floodlight")


def test_a_null_is_no_setting(settings: Path) -> None:
    settings.write_text("pace:\n")
    assert settled(settings).pace == "live"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("pase: every", "unrecognized arguments: --pase=every"),
        ("pace: slow", "invalid choice: 'slow'"),
        ("start: soon", "invalid float value"),
        ("picture: 3", "ignored explicit argument '3'"),
        ("out: x.vtt", "unrecognized arguments: --out"),
        ("- pace", "holds a list"),
        ("pace: [", "is not YAML"),
    ],
)
def test_a_bad_line_is_refused_with_the_file_s_name(settings: Path, text: str, warning: str) -> None:
    settings.write_text(text)
    with pytest.raises(SvmError) as refused:
        settled(settings)
    assert str(settings) in str(refused.value)
    assert warning in str(refused.value)
