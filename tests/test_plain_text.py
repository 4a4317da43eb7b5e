"""Text from outside: nothing in it reaches a terminal, a subtitle file or JSON as a control."""

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import ModelConfig
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.plain_text import harmless, safe_json, visible
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import FORMATS
from streaming_vlm_mlx.stream.events import GenerationResult
from tests.data.making import conversation, write_annotations
from tui import cli

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ATTACK = "a\x1b[31m\x07\x9b2Jred\u202egnp\u2066."
TEXT = st.text(st.one_of(st.characters(), st.sampled_from(ATTACK + "\n\t\r\ud800")))


@given(TEXT)
def test_no_control_is_left(text: str) -> None:
    assert not CONTROLS.search(visible(text))
    assert "\n" not in visible(text)
    assert not CONTROLS.search(harmless(text))
    assert harmless(harmless(text)) == harmless(text)


@given(TEXT)
def test_json_keeps_its_values(text: str) -> None:
    written = safe_json(json.dumps({text: [text]}, ensure_ascii=False, indent=1))
    assert not CONTROLS.search(written)
    assert json.loads(written) == json.loads(json.dumps({text: [text]}))


def test_a_name_is_shown_with_escapes() -> None:
    assert visible("\x1b[31mred \u202e ü.mp4\x85") == r"\x1b[31mred \u202e ü.mp4\x85"


@pytest.mark.parametrize("ending", FORMATS)
def test_exports_hold_no_controls(ending: str) -> None:
    second = GenerationResult(0, 0.0, 1.0, ATTACK, query=ATTACK)
    written = FORMATS[ending](SessionRecord(clip=ATTACK, seconds=(second,)), False)
    assert "red" in written
    assert not CONTROLS.search(written)


@pytest.mark.parametrize(
    "words",
    [
        ["infer", ATTACK],
        ["infer", "{tmp}/r.jsonl"],
        ["infer", "--ckpt", ATTACK],
        ["infer", "--out", f"{ATTACK}.doc"],
        ["infer", f"--{ATTACK}"],
        ["export", f"{ATTACK}.json", "--out", "{tmp}/a.vtt"],
        ["export", "{tmp}/s.json", "--out", f"{{tmp}}/{ATTACK}.vtt"],
        ["export", "{tmp}/s.json", "--out", "{tmp}/a.mp4"],
        ["convert", f"{ATTACK}.jsonl", "--out", "{tmp}/o.jsonl"],
        ["convert", "{tmp}/games.jsonl", "--out", "{tmp}/o.jsonl"],
        ["infer", "--ckpt", "{tmp}/checkpoint"],
        ["infer", "--config", "{tmp}/stream.yaml"],
        ["infer", "--adapter", ATTACK],
        ["validate", "--records", "{tmp}/r.jsonl", "--json", f"{{tmp}}/{ATTACK}/a.json"],
        ["train", "--config", "{tmp}/train.yaml", "--out", f"{{tmp}}/{ATTACK}"],
        [ATTACK],
    ],
    ids=" ".join,
)
def test_messages_hold_no_controls(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = (Turn(0.0, 1.0, "", "\n ..."),)
    (tmp_path / "r.jsonl").write_bytes(StreamingRecord(ATTACK, 0.0, 1.0, turns).to_line())
    (tmp_path / "s.json").write_text(SessionRecord(clip=ATTACK).to_json())
    write_annotations(tmp_path / "games.jsonl", [conversation(ATTACK, 0, 2, [[0, 1, ATTACK]])])
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(ModelConfig.from_dict({}).to_dict()))
    index = {"weight_map": {ATTACK: f"{ATTACK}.safetensors"}}
    (tmp_path / "checkpoint" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "stream.yaml").write_text(json.dumps({ATTACK: ATTACK}))
    (tmp_path / "train.yaml").write_text(json.dumps({"data": {"records": [ATTACK]}}))
    cli.main([word.format(tmp=tmp_path) for word in words])
    said = capsys.readouterr()
    assert said.err
    assert not CONTROLS.search(said.err + said.out)


def test_commands_print_through_one_module() -> None:
    """What prints by itself prints no text from outside, or made it safe."""
    allowed = {
        "messages.py": 2,
        "cli.py": 3,
        "train_progress.py": 1,
        "doctor.py": 1,
        "infer.py": 2,
        "convert_ckpt.py": 1,
        "downloads.py": 2,
        "models.py": 1,
    }
    found: dict[str, int] = {}
    for path in (Path(__file__).parents[1] / "tui").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found[path.name] = found.get(path.name, 0) + 1
    assert found == allowed
