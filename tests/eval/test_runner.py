"""A model is heard as a viewer hears it: from a fresh start, on its own words, and on grey pictures if asked."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.report import CaseResult, Report
from streaming_vlm_mlx.eval.runner import GREY, ValidationCase, grey_chunks, load_model, record_cases, run_case
from streaming_vlm_mlx.matches.match_truth import read_truth
from streaming_vlm_mlx.matches.tennis.judge import EVENT_LAG, Tally, TennisCounts, TennisJudge, find_judge, match_case
from streaming_vlm_mlx.matches.tennis.match import Tennis
from streaming_vlm_mlx.matches.writer import check_test_seeds, make_match
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.async_engine import Engine
from streaming_vlm_mlx.stream.events import GenerationResult, Loading, Ready
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import build, count_ids
from tests.stream.engines import CONFIG, TEXT, Script, make_chunks, make_loader

SEED = 900_000


class Watched(nn.Module):  # type: ignore[misc]
    """A vision tower that keeps what it is shown."""

    def __init__(self, inner: nn.Module, seen: list[Any]) -> None:
        super().__init__()
        self.inner, self.keep = inner, seen.append

    def __call__(self, pixel_values: mx.array, grid_thw: tuple[int, int, int]) -> mx.array:
        self.keep(np.array(pixel_values))
        return self.inner(pixel_values, grid_thw)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_match(tmp_path_factory.mktemp("match"), Tennis(4), SEED, 3.0).clip


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def engine(tokenizer: Tokenizer, seen: list[Any]) -> Iterator[Engine]:
    vocabulary = build(tokenizer, count_ids(tokenizer, [" one two three ...", "Commentate Tell me They lead."]), 400)
    inner = make_loader(tokenizer, Script(vocabulary))

    def watched(report: Callable[[Loading], None]) -> tuple[str, ModelBundle]:
        name, parts = inner(report)
        parts.model.visual = Watched(parts.model.visual, seen)
        return name, parts

    engine = Engine(watched, CONFIG)
    yield engine
    engine.close()


def ignore(event: object) -> None:
    pass


def test_grey_pictures_reach_the_model(clip: Path, engine: Engine, seen: list[Any]) -> None:
    case = match_case(clip).load()
    run_case(engine, CONFIG, case, ignore)
    assert len(seen) == 3
    assert all(np.ptp(pixels) > 1 for pixels in seen)
    seen.clear()
    run_case(engine, CONFIG, case, ignore, grey=True)
    assert len(seen) == 3
    mean, std = (np.array(getattr(CONFIG.pixels, f"image_{n}")) for n in ("mean", "std"))
    for pixels in seen:
        by_channel = pixels.reshape(len(pixels), 3, -1)
        assert np.allclose(by_channel, ((GREY / 255 - mean) / std)[None, :, None], atol=1e-5)


def test_a_question_is_asked_in_its_second_and_its_answer_is_no_commentary(clip: Path, engine: Engine) -> None:
    case = match_case(clip).load()
    assert isinstance(case.judge, TennisJudge)
    case = replace(case, judge=replace(case.judge, asked=((1.1, 1.9, "Who serves?", TEXT.upper()),)))
    run = run_case(engine, CONFIG, case, ignore)
    assert [s.answer for s in run.seconds] == ["", TEXT, ""]
    assert [s.commentary for s in run.seconds] == [TEXT, "", TEXT]
    assert isinstance(run.judged, TennisCounts)
    assert run.judged.answers == {"server": Tally(1, 1)}


def test_grey_seconds_keep_their_size_and_times() -> None:
    chunks = list(make_chunks(3))
    for grey, chunk in zip(grey_chunks(iter(chunks)), chunks, strict=True):
        assert (grey.frames == GREY).all()
        assert grey.frames.shape == chunk.frames.shape
        assert grey.frames.dtype == chunk.frames.dtype
        assert replace(grey, frames=chunk.frames) == chunk


def test_every_second_is_heard_and_every_run_starts_afresh(clip: Path, engine: Engine) -> None:
    case = match_case(clip).load()
    events: list[object] = []
    load_model(engine, events.append)
    assert any(isinstance(e, Ready) for e in events)
    first = run_case(engine, CONFIG, case, events.append)
    again = run_case(engine, CONFIG, case, ignore)
    done = [e for e in events if isinstance(e, GenerationResult)]
    assert [(s.start, s.end, s.text) for s in first.seconds] == [(i, i + 1.0, TEXT) for i in range(3)]
    assert first.seconds == tuple(done)
    assert all(s.timings.total_ms > 0 for s in first.seconds)
    assert (first.text, first.judged) == (again.text, again.judged)
    # A session that went on would hold the tokens of the first run too.
    assert [s.cache_tokens for s in first.seconds] == [s.cache_tokens for s in again.seconds]
    assert (first.text.words, first.text.seconds, first.text.silent) == (9, 3, 0)


def test_a_record_brings_its_own_settings_and_stretch(
    clip: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASET_PATH", str(clip.parent))
    turns = (Turn(1.0, 2.0, "Time=1.0-2.0s", "\n he serves ..."), Turn(2.0, 3.0, "Time=2.0-3.0s", "\n ..."))
    record = StreamingRecord(str(clip), 1.0, 3.0, turns, previous="They lead.", query="Tell me", fps=4.0)
    plain = tmp_path / "plain.mp4"
    plain.write_bytes(clip.read_bytes())
    (tmp_path / "r.jsonl").write_bytes(record.to_line() + replace(record, video=str(plain)).to_line())
    cases = list(record_cases([RecordFile.open(tmp_path / "r.jsonl")], find_judge))
    assert [e.name for e in cases] == [f"{tmp_path / 'r.jsonl'}:{i}" for i in range(2)]
    known, unknown = (e.load() for e in cases)
    truth = read_truth(clip.with_suffix(".truth.json"))
    assert known.words == tuple(w for w in truth.words if 1 <= w.start < 3)
    assert isinstance(known.judge, TennisJudge)
    assert known.judge.events == tuple(e for e in truth.events if 1 - EVENT_LAG <= e.time < 3)
    assert unknown.judge is None
    assert [w.text for w in unknown.words] == ["he", "serves"]
    run = run_case(engine, CONFIG, unknown, ignore)
    assert [s.start for s in run.seconds] == [1.0, 2.0]
    assert (engine.config.fps, engine.config.previous, engine.config.query) == (4.0, "They lead.", "Tell me")
    assert run.judged is None
    run_case(engine, CONFIG, match_case(clip).load(), ignore)
    assert engine.config == CONFIG


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"version": 1}'])
def test_a_broken_sidecar_is_named(text: str, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "match_900000.truth.json").write_text(text)
    with pytest.raises(SvmError, match=r"match_900000\.truth\.json is no truth"):
        match_case(tmp_path / clip.name).load()


def test_a_missing_clip_is_named(engine: Engine, clip: Path, tmp_path: Path) -> None:
    case = replace(match_case(clip).load(), clip=str(tmp_path / "gone.mp4"))
    with pytest.raises(SvmError, match=r"gone\.mp4 does not exist"):
        run_case(engine, CONFIG, case, ignore)


def test_a_checkpoint_that_cannot_be_read_shows_at_once() -> None:
    def broken(report: Callable[[Loading], None]) -> tuple[str, ModelBundle]:
        raise SvmError("run1 holds no config.json.")

    engine = Engine(broken, StreamConfig())
    with pytest.raises(SvmError, match=r"no config\.json"):
        load_model(engine, ignore)
    engine.close()


def test_matches_that_are_trained_on_are_refused() -> None:
    check_test_seeds(range(900_000, 900_003))
    with pytest.raises(SvmError, match="--seed is 899999; matches below 900000 are for training"):
        check_test_seeds(range(899_999, 900_002))


def test_a_report_is_in_order_and_says_what_is_missing(clip: Path, engine: Engine, tmp_path: Path) -> None:
    case: ValidationCase = match_case(clip).load()
    run = run_case(engine, CONFIG, case, ignore)
    report = Report([CaseResult(f"match_{n}", n, run, run) for n in (10, 9)], {"match_11": "no clip."})
    report.write(tmp_path / "v.json", {"seeds": [9, 10, 11]})
    values = json.loads((tmp_path / "v.json").read_text())
    assert [row["name"] for row in values["cases"]] == ["match_9", "match_10"]
    assert values["cases"][0]["said"] == [[0.0, TEXT], [1.0, TEXT], [2.0, TEXT]]
    assert values["failed"] == [{"name": "match_11", "reason": "no clip."}]
    assert values["complete"] is False
    assert values["seconds_per_second"] == sorted(s.timings.total_ms / 1e3 for s in run.seconds)[1]
