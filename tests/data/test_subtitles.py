"""Held against webvtt-py and srt on files that all of us can read, then what only we have to read."""

import html
import io
from datetime import timedelta

import pytest
import srt
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data.transcripts import TimedText, read_cues

lines = st.text("abc dé&,.!?'0123456789", min_size=1, max_size=20).map(str.strip).filter(lambda line: bool(line))
cues = st.lists(
    st.tuples(st.integers(0, 400_000_000), st.integers(1, 60_000), st.lists(lines, min_size=1, max_size=3)), max_size=8
)


def found(text: str) -> list[tuple[float, float, str]]:
    pieces = [cue.pieces for cue in read_cues(text) if isinstance(cue, TimedText)]
    return [(round(s, 3), round(e, 3), words) for parts in pieces for s, e, words in parts]


@given(cues)
def test_srt(raw: list[tuple[int, int, list[str]]]) -> None:
    made = [
        srt.Subtitle(n, timedelta(milliseconds=start), timedelta(milliseconds=start + length), "\n".join(text))
        for n, (start, length, text) in enumerate(raw, 1)
    ]
    text = srt.compose(made, reindex=False)
    want = [(s.start.total_seconds(), s.end.total_seconds(), s.content.replace("\n", " ")) for s in srt.parse(text)]
    assert found(text) == want


@given(cues)
def test_vtt(raw: list[tuple[int, int, list[str]]]) -> None:
    made = webvtt.WebVTT()
    for start, length, text in raw:
        written = [line.replace("&", "&amp;") for line in text]
        made.captions.append(webvtt.Caption(stamp(start), stamp(start + length), written))
    theirs = webvtt.from_buffer(io.StringIO(made.content)).captions
    ours = found(made.content)
    assert [(stamp_of(s), stamp_of(e)) for s, e, _ in ours] == [(c.start, c.end) for c in theirs]
    assert [words for *_, words in ours] == [html.unescape(c.text.replace("\n", " ")) for c in theirs]


def stamp_of(seconds: float) -> str:
    return stamp(round(seconds * 1000))


def stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"


VTT = """WEBVTT - a match
Kind: captions

NOTE the crowd
is loud

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Here <i>we</i> go</v> &amp; on

01:00:00.000 --> 01:00:01.000
Later
"""


def test_what_a_vtt_may_hold() -> None:
    assert found(VTT) == [(1.0, 2.5, "Here we go & on"), (3600.0, 3601.0, "Later")]


def test_word_times_within_a_cue() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:03.000\nhe<00:00:01.500><c> shoots</c><00:02.000><c> and scores</c>\n"
    assert found(text) == [(1.0, 1.5, "he"), (1.5, 2.0, " shoots"), (2.0, 3.0, " and scores")]


def test_captions_that_roll_up_are_said_once() -> None:
    text = (
        "WEBVTT\n\n00:00.000 --> 00:02.000\n \nhe<00:00:01.000><c> shoots</c>\n\n"
        "00:02.000 --> 00:02.010\nhe shoots\n \n\n"
        "00:02.010 --> 00:04.000\nhe shoots\nand<00:00:03.000><c> scores</c>\n\n"
    )
    assert [words.strip() for *_, words in found(text)] == ["he", "shoots", "and", "scores"]


def test_what_is_said_twice_is_said_twice() -> None:
    text = "1\n00:00:00,000 --> 00:00:01,000\nGoal!\n\n2\n00:00:01,000 --> 00:00:02,000\nGoal!\n"
    assert [words for *_, words in found(text)] == ["Goal!", "Goal!"]


@pytest.mark.parametrize(
    "text",
    [
        "1\r\n00:00:01,000 --> 00:00:02,000\r\nOne\r\n\r\n2\r\n00:00:02,000 --> 00:00:03,000\r\nTwo",
        "1\n00:00:01,000 --> 00:00:02,000\nOne\n2\n00:00:02,000 --> 00:00:03,000\nTwo\n\n",
        "00:00:01.000-->00:00:02.000\nOne\n\n\n\n0:00:02,000 --> 0:00:03,000\n{\\an8}Two",
    ],
)
def test_files_that_are_nearly_right(text: str) -> None:
    assert found(text) == [(1.0, 2.0, "One"), (2.0, 3.0, "Two")]


def test_times_that_can_not_be_read_are_named_by_line() -> None:
    cues = list(read_cues("1\nlater --> then\nOne\n\n2\n00:00:02,000 --> 00:00:03,000\nTwo\n"))
    assert cues[0] == 2
    assert cues[1] == TimedText(6, 2.0, 3.0, ((2.0, 3.0, "Two"),))


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    for cue in read_cues(text):
        assert isinstance(cue, int | TimedText)
