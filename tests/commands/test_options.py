"""Options that commands share."""

import argparse
from pathlib import Path

import pytest

from tui.commands.options import add_model_arguments, resolve_settings


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
        f"svm-tui: --query has no effect: the training template of {folder.name} has no query; "
        "ask questions in the player with /.\n"
    )
    assert capsys.readouterr().err == (warning if warns else "")
    assert (config.query == "in rhyme") is bool(words)
