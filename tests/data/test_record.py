import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data.jsonl import BadSampleError
from streaming_vlm_mlx.data.records import VERSION, NewerRecordError, StreamingRecord, Turn

texts = st.text(st.characters(codec="utf-8"), max_size=20)
times = st.floats(0, 1e6)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    start = draw(times)
    end = start + draw(st.floats(0.5, 10))
    tokens = draw(st.none() | st.integers(0, 10_000))
    return Turn(start, end, draw(texts), draw(texts), draw(texts), draw(texts), tokens)


@st.composite
def records(draw: st.DrawFn) -> StreamingRecord:
    start = draw(times)
    return StreamingRecord(
        video=draw(texts),
        video_start=start,
        video_end=start + draw(st.floats(0.5, 1e4)),
        turns=tuple(draw(st.lists(turns(), min_size=1, max_size=4))),
        previous=draw(texts),
        query=draw(texts),
        fps=float(draw(st.integers(1, 60))),
        width=draw(st.integers(0, 8192)),
        height=draw(st.integers(0, 8192)),
    )


@given(records())
def test_a_record_comes_back_from_its_line(record: StreamingRecord) -> None:
    line = record.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert StreamingRecord.from_line(line) == record


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (Turn(0, 1, "", "\n ..."), ""),
        (Turn(0, 1, "", "\n The crowd ..."), "The crowd"),
        (Turn(0, 1, "", "It is.\n the pitch ...", "Is it?", "It is."), "the pitch"),
        (Turn(0, 1, "", "It is.\n ...", "Is it?", "It is."), ""),
        (Turn(0, 1, "", "\n wait ... what ..."), "wait ... what"),
    ],
)
def test_the_commentary_is_what_is_said_beside_the_answer(turn: Turn, said: str) -> None:
    assert turn.commentary == said


def line(**changes: Any) -> bytes:
    turn = {"start": 0.0, "end": 1.0, "user_text": "Time=0.0-1.0s", "assistant_text": "\n ..."}
    values = {"version": VERSION, "video": "a.mp4", "video_start": 0.0, "video_end": 1.0, "turns": [turn]}
    values |= changes
    return json.dumps({key: value for key, value in values.items() if value is not ...}).encode()


def test_keys_that_may_be_missing_and_keys_that_nobody_knows() -> None:
    record = StreamingRecord.from_line(line(rating=5))
    assert (record.previous, record.query, record.fps, record.width) == ("", "", 2.0, 0)


TURN = {"start": 0.0, "end": 1.0, "user_text": "", "assistant_text": ""}


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a record: a list"),
        (b"{}", "version is None"),
        (line(version=True), "version is True"),
        (line(version=0), "version is 0"),
        (line(video=...), "missing key: video"),
        (line(video=7), "video is 7"),
        (line(video_start="0"), "video_start is '0'"),
        (line(video_start=float("nan")), "video_start is nan"),
        (line(video_end=10**400), "video_end is 1000"),
        (line(video_end=-1), "video_end is -1"),
        (line(video_end=True), "video_end is True"),
        (line(video_start=1.0), "reversed times: 1.0 to 1.0"),
        (line(turns=[]), "no turns"),
        (line(turns="no"), "no turns"),
        (line(turns=[5]), "malformed turn: 5"),
        (line(turns=[{**TURN, "assistant_text": None}]), "missing key: assistant_text"),
        (line(turns=[{**TURN, "end": 0.0}]), "reversed times: 0.0 to 0.0"),
        (line(turns=[{**TURN, "vision_tokens": -3}]), "vision_tokens is -3"),
        (line(fps=0.5), "fps is 0.5"),
        (line(fps=2.5), "fps is 2.5"),
        (line(width=-1), "width is -1"),
        (line(width=1.5), "width is 1.5"),
        (line(query="\ud800"), "half a surrogate pair"),
    ],
)
def test_what_is_no_record_is_named(broken: bytes, complaint: str) -> None:
    with pytest.raises(BadSampleError, match=r"^[^\n]*$") as error:
        StreamingRecord.from_line(broken)
    assert complaint in str(error.value)


def test_a_newer_record_is_refused() -> None:
    with pytest.raises(NewerRecordError, match=f"version {VERSION + 1}, newer than {VERSION}; update svm-tui"):
        StreamingRecord.from_line(line(version=VERSION + 1, turns="of another kind"))


def test_half_a_surrogate_pair_is_not_written() -> None:
    with pytest.raises(BadSampleError, match="half a surrogate pair"):
        StreamingRecord("a.mp4", 0.0, 1.0, (Turn(0.0, 1.0, "", "\udc80"),)).to_line()
