import io
import re

import pytest
import srt as srt_reader
import webvtt as webvtt_reader
from hypothesis import example, given
from hypothesis import strategies as st

from streaming_vlm_mlx.plain_text import harmless
from streaming_vlm_mlx.sessions.subtitles import clock, cues, srt, transcript, webvtt
from streaming_vlm_mlx.stream.events import GenerationResult

PIECES = ["-->", "\n", "\r\n", "\r", "&", "&lt;", "<", ">", "<b>", "{\\an8}", "\0", "\x85", "\u2028", "é", "1", " "]
NASTY = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=12).map("".join)
TIMES = st.integers(0, 400 * 3600 * 1000)


def second(start: float, text: str, query: str = "") -> GenerationResult:
    return GenerationResult(0, start, start + 1, text, query=query)


def in_order(starts, texts, queries=("",) * 9):
    return [second(s / 1000, t, q) for s, t, q in zip(sorted(starts), texts, queries, strict=False)]


def read_webvtt(text: str) -> list[tuple[int, int, str]]:
    return [
        (_milliseconds(c.start), _milliseconds(c.end), _unescaped(c.raw_text))
        for c in webvtt_reader.from_buffer(io.StringIO(text))
    ]


def _milliseconds(time: str) -> int:
    hours, minutes, seconds = time.split(":")
    return int(hours) * 3_600_000 + int(minutes) * 60_000 + round(float(seconds) * 1000)


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@given(starts=st.lists(TIMES, max_size=4), texts=st.lists(NASTY, min_size=4, max_size=4))
def test_webvtt_reads_back(starts, texts):
    seconds = in_order(starts, texts)
    expected = [(round(s.start * 1000), round(s.end * 1000), harmless(s.text)) for s in seconds if harmless(s.text)]
    assert read_webvtt(webvtt(seconds, per_second=True)) == expected


@given(starts=st.lists(TIMES, max_size=4), texts=st.lists(NASTY, min_size=4, max_size=4))
def test_srt_reads_back(starts, texts):
    seconds = in_order(starts, texts)
    stand_ins = str.maketrans("<>{}", "‹›()")
    expected = [(round(s.start * 1000), harmless(s.text).translate(stand_ins)) for s in seconds if harmless(s.text)]
    read = list(srt_reader.parse(srt(seconds, per_second=True), ignore_errors=False))
    assert [(round(c.start.total_seconds() * 1000), c.content) for c in read] == expected
    assert [c.index for c in read] == list(range(1, len(read) + 1))
    assert all(round((c.end - c.start).total_seconds() * 1000) == 1000 for c in read)


@given(starts=st.lists(TIMES, max_size=4), texts=st.lists(NASTY, min_size=4, max_size=4))
def test_sentences_read_back(starts, texts):
    seconds = in_order(starts, texts)
    words = " ".join(harmless(second.text) for second in seconds).split()
    cues = read_webvtt(webvtt(seconds))
    assert " ".join(text for _, _, text in cues).split() == words
    stand_ins = str.maketrans("<>{}", "‹›()")
    read = list(srt_reader.parse(srt(seconds), ignore_errors=False))
    assert " ".join(cue.content for cue in read).split() == [word.translate(stand_ins) for word in words]
    assert [round(cue.start.total_seconds() * 1000) for cue in read] == [start for start, _, _ in cues]


@given(text=NASTY, query=NASTY)
@example(text="", query="a\n\n00:00:05.000 --> 00:00:06.000\nb")
def test_no_text_can_forge_a_cue(text, query):
    seconds = [second(1, text, query)]
    assert webvtt(seconds).count("-->") == bool(harmless(text))
    assert srt(seconds).count("-->") == bool(harmless(text))
    assert len(read_webvtt(webvtt(seconds))) == bool(harmless(text))
    assert transcript(seconds).count("\n") == bool(harmless(text) or harmless(query))


@given(text=st.text())
def test_tidy_text_has_no_empty_line_and_no_control_character(text):
    tidied = harmless(text)
    assert harmless(tidied) == tidied
    assert all(line and line == line.strip() for line in tidied.split("\n")) or not tidied
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", tidied)
    tidied.encode("utf-8")


def test_tidy_keeps_what_a_viewer_reads():
    assert harmless("  He shoots!\t Goal \n\n 日本 👨‍👩‍👧 ") == "He shoots!  Goal\n日本 👨‍👩‍👧"
    assert harmless("a\udcffb") == "a\ufffdb"


SESSION = [
    second(0, "The crowd"),
    second(1, ""),
    second(2, "It is the seventh inning.\nthe pitch & it <sails>", "What inning\nis it?"),
    second(3, "", "Anyone?"),
    GenerationResult(4, 362_439.5, 362_439.5, "over"),
]


def test_webvtt_in_full():
    assert webvtt(SESSION) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.000\nThe crowd\n\n"
        "NOTE 00:00:02.000 asked: What inning is it?\n\n"
        "00:00:02.000 --> 00:00:03.000\nIt is the seventh inning.\nthe pitch &amp; it &lt;sails&gt;\n\n"
        "NOTE 00:00:03.000 asked: Anyone?\n\n"
        "100:40:39.500 --> 100:40:39.501\nover\n"
    )


def test_srt_in_full():
    assert srt(SESSION) == (
        "1\n00:00:00,000 --> 00:00:01,000\nThe crowd\n\n"
        "2\n00:00:02,000 --> 00:00:03,000\nIt is the seventh inning.\nthe pitch & it ‹sails›\n\n"
        "3\n100:40:39,500 --> 100:40:39,501\nover\n"
    )


def test_transcript_in_full():
    assert transcript(SESSION) == (
        "00:00:00  The crowd\n"
        "00:00:02  [What inning is it?]  It is the seventh inning. the pitch & it <sails>\n"
        "00:00:03  [Anyone?]\n"
        "100:40:39  over\n"
    )


def test_a_silent_session_is_a_valid_file():
    assert webvtt([second(0, "")]) == "WEBVTT\n"
    assert srt([]) == transcript([]) == ""


def test_times_before_the_beginning_start_at_it():
    [cue] = cues([GenerationResult(0, -0.5, 0.5, "early")])
    assert (cue.start, cue.end) == (0, 500)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "00:00:00.000"), (59_999, "00:00:59.999"), (3_600_000, "01:00:00.000"), (3_599_999_999, "999:59:59.999")],
)
def test_clock(milliseconds, text):
    assert clock(milliseconds) == text
