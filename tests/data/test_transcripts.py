import html
import io
import json
import time
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import srt
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data import transcripts
from streaming_vlm_mlx.data.transcripts import TimedText, Transcript, read_cues, read_transcript
from streaming_vlm_mlx.errors import SvmError


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def reader(content: Any, name: str = "t.json") -> Transcript:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return read_transcript(path)

    return reader


SRT = b"1\n00:00:01,000 --> 00:00:02,000\nHe takes it\n\n2\n00:00:03,000 --> 00:00:04,000\nshot\n"


def test_words_share_a_cue_evenly(read: Any) -> None:
    words = read(SRT, "t.srt").words
    assert [word for *_, word in words] == ["He", "takes", "it", "shot"]
    assert [end for _, end, _ in words] == pytest.approx([4 / 3, 5 / 3, 2.0, 4.0])


class TestJson:
    @pytest.mark.parametrize(
        "content",
        [
            {"text": "He shoots", "segments": [{"start": 0, "end": 2.0, "text": " He shoots"}]},
            {"words": [[0, 1.0, "He"], [1, 2.0, "shoots"]], "events": []},
            {
                "text": "He shoots",
                "words": [{"word": "He", "start": 0, "end": 1}, {"word": "shoots", "start": 1, "end": 2}],
            },
            {
                "seconds": [
                    {"index": 0, "start": 0.0, "end": 1.0, "text": "He"},
                    {"start": 1, "end": 2, "text": "shoots"},
                ]
            },
            {"transcription": [{"offsets": {"from": 0, "to": 2000}, "text": " He shoots"}]},
            [{"start": 0, "end": 2, "text": "He shoots"}],
            [[0, 1, "He"], [1, 2, "shoots"]],
        ],
        ids=["whisper", "truth", "openai", "session", "whisper.cpp", "segments", "words"],
    )
    def test_kinds(self, read: Any, content: Any) -> None:
        transcript = read(content)
        assert transcript.words == ((0, 1, "He"), (1, 2, "shoots"))
        assert transcript.skipped == ()

    def test_word_times_come_first(self, read: Any) -> None:
        words = [{"word": " He", "start": 0.2, "end": 0.4}, {"word": " shoots", "start": 1.5, "end": 1.9}]
        assert read({"segments": [{"start": 0, "end": 2, "text": "He shoots", "words": words}]}).words == (
            (0.2, 0.4, "He"),
            (1.5, 1.9, "shoots"),
        )

    def test_words_without_times_fill_the_gap(self, read: Any) -> None:
        words = [
            {"word": "21"},
            {"word": "to", "start": 1.0, "end": 1.5},
            {"word": "19"},
            {"word": "now", "start": 2.5, "end": 3.0},
            {"word": "30"},
        ]
        found = read({"segments": [{"start": 0.5, "end": 4.0, "words": words}]}).words
        assert found == ((0.5, 1.0, "21"), (1.0, 1.5, "to"), (1.5, 2.5, "19"), (2.5, 3.0, "now"), (3.0, 4.0, "30"))

    def test_what_is_no_segment_is_named(self, read: Any) -> None:
        good = {"start": 0, "end": 1, "text": "He"}
        bad = [5, {"start": 2, "end": 1, "text": "back"}, {"start": None, "end": 1, "text": "x"}, {"words": [7]}]
        transcript = read({"segments": [good, *bad]})
        assert [word for *_, word in transcript.words] == ["He"]
        assert len(transcript.skipped) == 4
        assert "t.json: segment 3: reversed times, 2 to 1 s" in transcript.skipped[1].replace(": 2", ", 2")


def test_parts_out_of_order_are_put_in_order_and_ends_never_fall_back(read: Any) -> None:
    content = [[5, 6, "late"], [0, 4, "long"], [1, 2, "within"]]
    assert read(content).words == ((0, 4, "long"), (1, 4, "within"), (5, 6, "late"))


def test_reversed_cues_are_named_by_line(read: Any, tmp_path: Path) -> None:
    transcript = read(SRT.replace(b"00:00:03,000", b"00:00:05,000"), "t.srt")
    assert transcript.skipped == (f"{tmp_path / 't.srt'}:6: reversed times, 5 to 4 s",)
    assert len(transcript.words) == 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_of_subtitles(read: Any, encoding: str) -> None:
    content = SRT.decode().replace("takes", "Müller's").encode(encoding)
    assert read(content, "t.srt").words[1][2] == "Müller's"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.json", b"{", "not JSON"),
        ("t.json", b"{}", "not a transcript"),
        ("t.json", b"5", "not a transcript"),
        ("t.json", b"[]", "holds no timed words"),
        ("t.srt", b"", "holds no timed words"),
        ("t.vtt", b"WEBVTT\n\n00:00.000 --> 00:01.000\n \n", "holds no timed words"),
        ("t.srt", b"\x00\x01\x02", "holds no timed words"),
        ("t.srt", b"1\nnow --> then\nx\n", r"holds no timed words \(.*t.srt:2: invalid times\)"),
        ("t.txt", b"He shoots", "holds no timed words"),
    ],
)
def test_what_is_no_transcript_is_refused(read: Any, name: str, content: bytes, problem: str) -> None:
    with pytest.raises(SvmError, match=problem):
        read(content, name)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(SvmError, match="cannot be read"):
        read_transcript(tmp_path / "absent.srt")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["segments", "words", "word", "start", "end", "text", "offsets"]), inner)
    ),
)


@given(json_values)
def test_no_json_is_too_odd(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    path = tmp_path_factory.mktemp("odd") / "t.json"
    path.write_text(json.dumps(values))
    try:
        transcript = read_transcript(path)
    except SvmError:
        return
    assert transcript.words
    ends = [end for _, end, _ in transcript.words]
    assert ends == sorted(ends)


parts = st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 100), st.text("ab ", max_size=12)), min_size=1, max_size=6)


@given(parts)
def test_every_word_comes_through(
    tmp_path_factory: pytest.TempPathFactory, raw: list[tuple[float, float, str]]
) -> None:
    segments = [{"start": start, "end": start + length, "text": text} for start, length, text in raw]
    want = [word for segment in sorted(segments, key=lambda s: s["start"]) for word in str(segment["text"]).split()]
    path = tmp_path_factory.mktemp("words") / "t.json"
    path.write_text(json.dumps({"segments": segments}))
    if want:
        assert [word for *_, word in read_transcript(path).words] == want
    else:
        with pytest.raises(SvmError):
            read_transcript(path)


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


def test_times_that_cannot_be_read_are_named_by_line() -> None:
    cues = list(read_cues("1\nlater --> then\nOne\n\n2\n00:00:02,000 --> 00:00:03,000\nTwo\n"))
    assert cues[0] == 2
    assert cues[1] == TimedText(6, 2.0, 3.0, ((2.0, 3.0, "Two"),))


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    for cue in read_cues(text):
        assert isinstance(cue, int | TimedText)


def captions(count: int) -> str:
    cues = (f"{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}.000 --> 99:59:59.000\nword\n\n" for n in range(count))
    return "WEBVTT\n\n" + "".join(cues)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("many.vtt", captions(60_000)),
        ("angles.vtt", f"WEBVTT\n\n00:00.000 --> 00:01.000\nword {'<' * 300_000}\n"),
        ("braces.srt", "1\n00:00:00,000 --> 00:00:01,000\nword " + r"{\an8" * 150_000),
        ("words.json", json.dumps({"segments": [{"start": 0, "end": 9, "words": [{"word": "word"}] * 60_000}]})),
    ],
    ids=lambda value: value if len(value) < 20 else "",
)
def test_time_grows_with_the_length_of_a_transcript(name: str, content: str, tmp_path: Path) -> None:
    """Each takes a second at most; where the time grew with the square it took half a minute or more."""
    (tmp_path / name).write_text(content)
    begun = time.process_time()
    assert read_transcript(tmp_path / name).words[0][2] == "word"
    assert time.process_time() - begun < 12


def test_a_transcript_of_many_bad_times_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nword\n\n" + "-->\n" * 50_000)
    assert len(read_transcript(tmp_path / "a.vtt").skipped) == 1000


def test_a_transcript_that_is_no_transcript_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.vtt").open("wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(SvmError, match="is larger than 8 MB"):
        read_transcript(tmp_path / "a.vtt")


@pytest.mark.parametrize(
    "content",
    [
        [1.5] * 51,
        [[0, 1, "a"]] * 51,
        {"segments": [{"start": 0, "end": 9, "words": [{"word": "a"}] * 51}]},
        [[0, 1, "a"], [1, 2, "a " * 50]],
    ],
    ids=["no segments", "segments", "words", "one text"],
)
def test_more_words_than_anyone_says_are_refused(read: Any, content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "MOST_WORDS", 50)
    with pytest.raises(SvmError, match=r"t.json holds more than 50 words or segments; cut it"):
        read(content)


def test_as_many_words_as_may_be_are_read(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "MOST_WORDS", 50)
    words = read([[0, 1, "a " * 25], [1, 2, "b " * 25]]).words
    assert len(words) == 50
    assert words[-1] == (pytest.approx(1.96), 2.0, "b")


def test_a_text_of_too_many_words_is_not_cut_into_all_of_them(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "MOST_WORDS", 50)
    tracemalloc.start()
    with pytest.raises(SvmError, match="holds more than 50 words"):
        read([[0, 1, "ab " * 2_000_000]])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The file is read into 32 MB.
    assert peak < 60 << 20
