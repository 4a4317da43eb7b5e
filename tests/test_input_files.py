"""Damaged and hostile files: each ends in one line and the status 2, soon, and with little memory."""

import json
import os
from pathlib import Path

import pytest

from streaming_vlm_mlx.checkpoint_files import read_json
from streaming_vlm_mlx.config import ModelConfig, StreamConfig
from streaming_vlm_mlx.config_io import read_config
from streaming_vlm_mlx.data import json_fields
from streaming_vlm_mlx.data.records import RecordFile
from streaming_vlm_mlx.data.transcripts import read_transcript
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import read_file
from streaming_vlm_mlx.sessions.journal import load_session
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.data.test_records import record
from tui import cli

DEEP = "[" * 100_000 + "]" * 100_000
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))


def session(**second: object) -> str:
    return json.dumps({"version": 2, "seconds": [{"index": 0, "start": 0.0, "end": 1.0, "text": "x", **second}]})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("deep.json", DEEP, "nested too deeply"),
        ("deep.jsonl", DEEP, "nested too deeply"),
        ("nan.json", session(end=float("nan")), "NaN is no number"),
        ("infinity.json", session(end=float("inf")), "Infinity is no number"),
        ("huge.json", session(end=1e308), "end of a second is 1e+308"),
        ("over.json", session().replace("1.0", "1e999"), "too large"),
        ("digits.json", session().replace("1.0", "9" * 400), "a number of 400 digits"),
        ("wordy.json", session(text="x" * 200_000), "text of a second"),
        ("number.jsonl", '{"version": 2}\n{"spoken": 5}\n', "not an object"),
        ("skipped.jsonl", '{"version": 2}\n{"skipped": []}\n', "not an object"),
    ],
)
def test_a_damaged_session_is_refused_in_one_line(
    name: str, content: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    assert cli.main(["export", str(tmp_path / name), "--out", str(tmp_path / "a.vtt")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert str(tmp_path / name) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "a.vtt").exists()


MANY = 3_000_000


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("values.json", '{"version": 2, "seconds": [' + "{}," * MANY + "{}]}", "more than 3,000,000 values"),
        (
            "values.jsonl",
            '{"version": 2}\n{"settings": {"a": [' + "[]," * MANY + "1]}}\n",
            "more than 3,000,000 values",
        ),
        ("seconds.json", json.dumps({"version": 2, "seconds": [5] * 90_001}), "more than 90,000 seconds"),
        ("parts.json", json.dumps({"version": 2, "takes": [5] * 45_001, "skipped": [5] * 45_000}), "90,000 seconds"),
        ("lines.jsonl", '{"version": 2}\n' + "\n" * 90_001, "more than 90,000 seconds"),
    ],
    ids=lambda value: value[:12],
)
def test_a_session_that_would_fill_the_memory_is_refused_before_it_is_built(
    name: str, content: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SvmError, match=says):
        load_session(tmp_path / name)


def test_lines_that_would_fill_the_memory_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    values = b'{"version":1,"turns":[' + b"{}," * MANY + b"{}]}\n"
    monkeypatch.setattr(json_fields, "LARGEST", len(values))
    path.write_bytes(values + b'{"version":1,"turns":"' + b"x" * len(values) + b'"}\n' + record(1).to_line())
    records = RecordFile.open(path)
    assert [one.video for one in records] == [str(tmp_path / "1.mp4")]
    assert "more than 3,000,000 values" in records.skipped[0]
    assert "larger than 8 MB" in records.skipped[1]


def test_settings_in_a_journal_that_are_none_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"version": 2}\n{"settings": 5}\n{"failure": 5}\n')
    read = load_session(tmp_path / "a.jsonl")
    assert (read.settings, read.failure) == ({}, "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        (BOMB, "more than 10000 values"),
        ("a: &a [*a]", "more than 10000 values"),
        ("query: 2020-13-45", "not YAML: month must be"),
        ("window: !!int abc", "not YAML"),
        ("all_text: !!bool maybe", "not YAML"),
        ("window: " + "9" * 5000, "not YAML"),
        ("# many lines\n" * 11_000, "larger than 128 kB"),
        ("window: 0x" + "f" * 5000, "window is"),
        ("fps: " + "9" * 400, "a float can hold"),
        ("fps: 10000000", "fps is 10000000.0; it must be above 0 and at most 1000"),
        ("sampling: {temperature: .inf}", "temperature is inf; it must be 0 or more, and finite"),
        ("sampling: {temperature: .nan}", "temperature is nan"),
        ("mode: [a]", "mode is ['a']"),
    ],
    ids=range(14),
)
def test_damaged_settings_are_refused_in_one_line(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(content)
    with pytest.raises(SvmError) as caught:
        read_config(path, StreamConfig)
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


def test_settings_may_refer_to_each_other(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("window: &n 4\ntext_round: *n\n")
    assert read_config(tmp_path / "s.yaml", StreamConfig).text_round == 4


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("text_config", {"rms_norm_eps": 0}),
        ("text_config", {"num_hidden_layers": 10**12}),
        ("text_config", {"hidden_size": 9 * 10**400}),
        ("vision_config", {"depth": 1_000_000}),
        ("vision_config", {"hidden_size": 2147483648}),
    ],
)
def test_sizes_that_no_model_has_are_refused(part: str, values: dict[str, object]) -> None:
    given = {**ModelConfig.from_dict({}).to_dict(), "vision_config": {}}
    with pytest.raises(SvmError, match=next(iter(values))):
        ModelConfig.from_dict({**given, part: {**(given[part] or {}), **values}})


@pytest.mark.parametrize("model", [{}, {"vocab": [], "merges": []}, {"vocab": {"a": 0}, "merges": ["b c"]}])
def test_a_tokenizer_that_the_library_refuses_is_named(model: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", **model}}))
    with pytest.raises(SvmError, match=r"tokenizer.json is damaged .*; copy the file again"):
        Tokenizer.load(tmp_path)


def test_a_deep_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(SvmError, match="nested too deeply"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps([[0, 1, "ok"], [int("9" * 400), 2, "late"]])),
        ("b.json", json.dumps([[0, 1, "ok"], {"offsets": {"from": 0, "to": int("9" * 400)}, "text": "late"}])),
        ("c.vtt", f"WEBVTT\n\n{'9' * 400}:00:00.000 --> 00:02.000\nlate\n\n00:00.000 --> 00:01.000\nok\n"),
        ("d.vtt", f"WEBVTT\n\n00:00.000 --> 00:01.000\nok\n\n00:01.000 --> 00:02.000\n&#{'9' * 5000};\n"),
    ],
)
def test_a_transcript_with_a_huge_number_loses_only_that(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_transcript(tmp_path / name).words[0][2] == "ok"


@pytest.mark.parametrize(
    "words", [["infer", "x" * 300], ["export", "x" * 300, "--out", "a.vtt"], ["replay", "x" * 300]]
)
def test_a_name_that_is_too_long_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "File name too long" in said
    assert said.count("\n") == 1


def test_an_index_with_one_changed_byte_is_rebuilt(tmp_path: Path) -> None:
    path, index = tmp_path / "r.jsonl", tmp_path / "r.jsonl.index.npz"
    path.write_bytes(b"".join(record(number).to_line() for number in range(4)))
    RecordFile.open(path)
    good = index.read_bytes()
    for place in range(0, len(good), 7):
        index.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        assert RecordFile.open(path).offsets.tolist() == RecordFile.open(path).offsets.tolist()
        assert len(RecordFile.open(path)) == 4


@pytest.mark.parametrize("kind", ["pipe", "zeros", "large"])
def test_what_has_no_end_is_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"x" * 1025)
    with pytest.raises(SvmError, match="is larger than" if kind == "large" else "is not a regular file"):
        read_file(path, 1024)


@pytest.mark.parametrize(
    "words",
    [
        ["infer", "{tmp}/pipe.jsonl"],
        ["infer", "{tmp}/pipe.mp4"],
        ["infer", "--config", "{tmp}/pipe.yaml"],
        ["export", "{tmp}/pipe.json", "--out", "{tmp}/a.vtt"],
        ["export", "/dev/zero", "--out", "{tmp}/a.vtt"],
        ["convert", "{tmp}/pipe.jsonl", "--out", "{tmp}/o.jsonl"],
        ["convert", "{tmp}/clip.mp4", "{tmp}/pipe.vtt", "--out", "{tmp}/o.jsonl"],
    ],
    ids=" ".join,
)
def test_no_command_waits_for_a_pipe(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ending in ("jsonl", "mp4", "yaml", "json", "vtt"):
        os.mkfifo(tmp_path / f"pipe.{ending}")
    assert cli.main([word.format(tmp=tmp_path) for word in words]) == 2
    said = capsys.readouterr().err
    assert "is not a regular file" in said
    assert said.count("\n") == 1


def test_a_journal_is_read_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of skipped seconds makes no record for each of them."""
    lines = [json.dumps({"skipped": Skipped(n, float(n), n + 1.0).to_dict()}) for n in range(3600)]
    spoken = [GenerationResult(n, float(n), n + 1.0, "x").to_dict() for n in (5, 3, 5)]
    lines += [json.dumps({"spoken": second}) for second in spoken]
    (tmp_path / "a.jsonl").write_text("\n".join(['{"version": 2}', *lines, ""]))
    made: list[int] = []
    monkeypatch.setattr(SessionRecord, "__post_init__", lambda self: made.append(1), raising=False)
    read = load_session(tmp_path / "a.jsonl")
    assert len(made) <= 3
    assert [second.start for second in read.seconds] == [3.0, 5.0]
    assert [second.start for second in read.takes] == [5.0]
    assert len(read.skipped) == 3598
