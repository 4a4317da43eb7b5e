import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import LONGEST
from streaming_vlm_mlx.memory import Memory
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped, Timings


def done(start: float, text: str = "", query: str = "", index: int = 0) -> GenerationResult:
    return GenerationResult(
        index=index,
        start=start,
        end=start + 1,
        text=text,
        tokens=5,
        video_tokens=12,
        cache_tokens=300,
        cache_bytes=4096,
        query=query,
        timings=Timings(1.5, 2.5, 3.5, 4.5, 7.5),
        memory=Memory(10, 20, 30, 40, 50),
    )


# The second ends 1 s later, and no time of a record is above LONGEST.
FINITE = st.floats(0, LONGEST - 1, allow_nan=False)
SECONDS = st.builds(done, FINITE, st.text(max_size=20), st.text(max_size=10), st.integers(0, 10**6))
RECORDS = st.lists(SECONDS, max_size=6)


@given(seconds=RECORDS, clip=st.text(max_size=10))
def test_a_record_survives_its_json(seconds, clip):
    record = SessionRecord(clip=clip, settings=StreamConfig().to_dict()).skip(Skipped(3, 0.25, 1.25))
    for second in seconds:
        record = record.add(second)
    assert SessionRecord.from_dict(json.loads(record.to_json())) == record


@given(seconds=RECORDS)
def test_seconds_are_in_order_and_none_is_lost(seconds):
    record = SessionRecord()
    for second in seconds:
        record = record.add(second)
    starts = [round(s.start, 3) for s in record.seconds]
    assert starts == sorted(set(starts))
    kept = sorted((*record.seconds, *record.takes), key=repr)
    assert kept == sorted(seconds, key=repr)


def test_a_second_played_again_keeps_its_older_take():
    record = SessionRecord().add(done(2.0, "once")).add(done(1.0, "before")).add(done(2.0000001, "twice"))
    assert [s.text for s in record.seconds] == ["before", "twice"]
    assert [s.text for s in record.takes] == ["once"]


def test_a_result_replaces_the_skip_of_its_second():
    record = SessionRecord().skip(Skipped(5, 5.0, 6.0)).skip(Skipped(4, 4.0, 5.0))
    assert record.skipped == (Skipped(4, 4.0, 5.0), Skipped(5, 5.0, 6.0))
    assert record.add(done(5.0)).skipped == (Skipped(4, 4.0, 5.0),)


def test_the_json_is_plain_to_read():
    values = json.loads(SessionRecord(model="tiny", created="2026-11-22T20:00:00Z").add(done(0.0, "日本")).to_json())
    assert values["version"] == 2
    assert values["seconds"][0]["timings"]["first_text_ms"] == 4.5
    assert values["seconds"][0]["memory"]["machine"] == 50
    assert "日本" in SessionRecord().add(done(0.0, "日本")).to_json()


def test_unknown_keys_are_ignored():
    values = {
        "version": 1,
        "colour": "green",
        "seconds": [{"index": 0, "start": 0, "end": 1, "text": "a", "mood": 3, "timings": {"vision_ms": 1, "wait": 2}}],
        "skipped": [{"index": 1, "start": 1, "end": 2, "why": "late"}],
    }
    record = SessionRecord.from_dict(values)
    assert record.seconds == (GenerationResult(0, 0.0, 1.0, "a", timings=Timings(1, 0, 0, 0, 0)),)
    assert record.skipped == (Skipped(1, 1.0, 2.0),)


def test_the_notes_of_a_session_of_format_1_are_read():
    second = {"index": 0, "start": 0.0, "end": 1.0, "text": "a", "noted": "a pause.", "memory": None, "timings": None}
    [kept] = SessionRecord.from_dict({"version": 1, "seconds": [second]}).seconds
    assert kept == GenerationResult(0, 0.0, 1.0, "a", notes="a pause.")


@pytest.mark.parametrize(
    ("text", "query", "answer", "commentary"),
    [
        ("he scores", "", "", "he scores"),
        ("The reds.\nhe scores", "who?", "The reds.", "he scores"),
        ("The reds.", "who?", "The reds.", ""),
        ("two\nlines", "", "", "two\nlines"),
    ],
)
def test_the_first_line_answers_a_question(text, query, answer, commentary):
    second = done(0.0, text, query)
    assert (second.answer, second.commentary) == (answer, commentary)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, r"session format 3 is newer than this program's \(2\); update svm-tui"),
        ({"version": None}, "it has no 'version'"),
        ({"version": "1"}, "it has no 'version'"),
        ({"seconds": [{"index": 0, "start": 0, "end": 1}]}, "a second lacks its text"),
        ({"seconds": [{"index": 0, "start": "0", "end": 1, "text": ""}]}, "GenerationResult.start is '0'"),
        ({"seconds": [3]}, "SessionRecord.seconds is 3"),
        ({"skipped": [{"index": 0, "end": 1}]}, "a second lacks its start"),
        ({"seconds": [{"index": 0, "start": 0, "end": 1, "text": "", "timings": 3}]}, "GenerationResult.timings is 3"),
        (
            {"seconds": [{"index": 0, "start": 0, "end": 1, "text": "", "memory": {"peak": "x"}}]},
            "Memory.peak is 'x'; it must be of type int",
        ),
        # As an integer it would have more digits than a session's JSON may have.
        (
            {"seconds": [{"index": 0, "start": 0, "end": 1, "text": "", "memory": {"peak": -1e308}}]},
            "it must be a whole number of 64 bits",
        ),
    ],
)
def test_an_error_names_its_cause(tmp_path, change, message):
    path = tmp_path / "session.json"
    path.write_text(json.dumps({"version": 1, **change}))
    with pytest.raises(SvmError, match=message) as caught:
        SessionRecord.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"WEBVTT"])
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    (tmp_path / "session.json").write_bytes(content)
    with pytest.raises(SvmError, match=r"session\.json is not JSON"):
        SessionRecord.load(tmp_path / "session.json")


@pytest.mark.parametrize("content", ["[]", "null", "3", "{}"])
def test_json_that_is_not_a_session_is_named(tmp_path, content):
    (tmp_path / "session.json").write_text(content)
    with pytest.raises(SvmError, match=r"session\.json: it is not a session"):
        SessionRecord.load(tmp_path / "session.json")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(SvmError, match=r"none\.json cannot be read: No such file or directory\.$"):
        SessionRecord.load(tmp_path / "none.json")
