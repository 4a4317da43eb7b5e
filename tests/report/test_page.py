"""The page and its JSON: what they hold, that texts stay texts, and which files they replace."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.report.page import (
    MOST_SHOWN,
    check_replaceable,
    is_report_json,
    read_report,
    render_json,
    render_page,
    write_report,
)
from streaming_vlm_mlx.report.tables import clock, without_secrets
from tests.report.made import reference, report, session

HOSTILE = "<script>alert(1)</script> <img src=https://evil.example/x.png> &lt; \"'> \x1b[31m\x07\x9b \u202egoal\u2066"


class Tags(HTMLParser):
    """All tags with their attributes, and the text between them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def hostile():
    """A report with hostile text wherever a model or a file can put it."""
    said = replace(
        session(f"{HOSTILE} he scores", HOSTILE, clip=f"{HOSTILE}.mp4"),
        model=HOSTILE,
        settings={HOSTILE: HOSTILE, "deep": {HOSTILE: [HOSTILE]}},
        versions={HOSTILE: HOSTILE},
        machine={HOSTILE: HOSTILE},
        failure=HOSTILE,
    )
    asked = replace(said.seconds[0], text=f"{HOSTILE}\n{HOSTILE}", query=HOSTILE)
    said = replace(said, seconds=(asked, *said.seconds[1:]))
    told = reference(f"{HOSTILE} he misses", HOSTILE)
    made = report(said, said, told=told, columns=[HOSTILE, f"{HOSTILE}2"], title=HOSTILE, notes=[HOSTILE])
    return replace(made, command=f"svm-tui report {HOSTILE}")


def test_hostile_text_stays_text():
    page = render_page(hostile())
    found = Tags(page)
    assert not {tag for tag, _ in found.tags} & {"script", "iframe", "object", "embed", "form", "a", "base", "audio"}
    assert {value[:16] for tag, attrs in found.tags for name, value in attrs.items() if name in ("src", "href")} == {
        "data:image/jpeg;",
        "data:,",
    }
    assert not any(name.startswith("on") or name == "style" for _, attrs in found.tags for name in attrs)
    assert "<script>alert(1)</script>" in found.text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", render_json(hostile()))


def test_no_address_is_loaded():
    page = render_page(report(session("he scores"), told=reference("he scores")))
    style = re.search("<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert not re.search(r"url\(|@import|https?:|//", style[1])
    assert "default-src 'none'" in page


def test_differences_are_marked_on_both_sides():
    page = render_page(report(session("he shoots now"), told=reference("he passes now")))
    assert '<mark class="added">shoots</mark>' in page
    assert '<mark class="missed">passes</mark>' in page
    assert '<mark class="added">he' not in page


def test_a_word_that_one_of_two_sessions_misses_is_marked_so():
    page = render_page(report(session("he shoots"), session("she shoots"), told=reference("he scores")))
    assert '<mark class="partly">he</mark>' in page
    assert '<mark class="missed">scores</mark>' in page


def test_without_a_reference_the_second_session_is_marked_against_the_first():
    page = render_page(report(session("he shoots"), session("he scores"), columns=["fine", "4-bit"]))
    assert page.count('<mark class="added">') == 2  # in the legend, and in the second column
    assert '<mark class="added">scores</mark>' in page
    assert "name one with --truth" in page


def test_pictures_begin_scenes():
    page = render_page(report(session(*"abcdef"), told=reference(*"abcdef"), pictures=[2.0, 4.5]))
    scenes = re.findall(r'<section class="scene(.*?)</section>', page, re.S)
    assert [re.findall(r'<th scope="row" class="time">(.*?)</th>', scene) for scene in scenes] == [
        ["0:00", "0:01"],
        ["0:02", "0:03"],
        ["0:04", "0:05"],
    ]
    assert ["<img" in scene for scene in scenes] == [False, True, True]


def test_questions_answers_and_skipped_seconds_are_shown():
    made = session("Blue leads.\nhe serves", "", skipped=[2])
    made = replace(made, seconds=(replace(made.seconds[0], query="who leads?"), made.seconds[1]))
    page = render_page(report(made))
    for part in (
        'class="question">who leads?<',
        'class="answer">Blue leads.<',
        'class="skipped">skipped<',
        "he serves",
    ):
        assert part in page


def test_the_page_names_settings_versions_machine_and_command():
    text = Tags(render_page(report(session("a"), notes=["Only matches."]))).text
    for part in ("sampling.seed", "version: mlx", "0.32", "M9", "16.0 GB", "svm-tui report game.mp4", "Only matches."):
        assert part in text


def test_settings_that_differ_are_marked():
    other = replace(session("a"), settings={"window": 4, "sampling": {"seed": 0}})
    page = render_page(report(session("a"), other))
    rows = dict(re.findall(r'<tr( class="differs")?><th scope="row">(window|sampling.seed)</th>', page))
    assert rows == {' class="differs"': "window", "": "sampling.seed"}


def test_of_many_stretches_the_first_are_shown_and_all_in_the_table():
    made = report(session("a"), told=reference("a"))
    made = replace(made, stretches=tuple(replace(made.stretches[0], name=f"r:{at}") for at in range(MOST_SHOWN + 2)))
    page = render_page(made)
    assert page.count('<section class="scene') == MOST_SHOWN
    assert page.count('<th scope="row">r:') == MOST_SHOWN + 2
    assert f"first {MOST_SHOWN} of {MOST_SHOWN + 2}" in page
    assert len(json.loads(render_json(made))["stretches"]) == MOST_SHOWN + 2


def test_the_json_gives_the_sessions_and_the_reference_back(tmp_path):
    first, second = session("he shoots"), session("he scores")
    written = write_report(tmp_path / "r.html", report(first, second, told=reference("he passes"), columns=["a", "b"]))
    assert written == tmp_path / "r.json"
    assert is_report_json(written)
    assert read_report(written) == [(first, reference("he passes")), (second, reference("he passes"))]
    values = json.loads(written.read_text())
    assert values["figures"]["b"]["wer"] == 0.5
    assert values["stretches"][0]["pictures"] == [0.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not the JSON of a report"),
        ('{"kind": "svm-tui report", "version": 9}', "has format 9, newer"),
        ('{"version": 1, "stretches": [{}, {}]}', "is a report on 2 stretches"),
        ('{"version": 1, "stretches": [{"sessions": [5], "reference": []}]}', "it is not a session"),
        ('{"version": 1, "stretches": [{"sessions": [{"version": 2, "seconds": 5}], "reference": []}]}', "r.json: "),
    ],
)
def test_a_broken_json_is_named(content, message, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(SvmError, match=re.escape(message)) as found:
        read_report(path)
    assert str(path) in str(found.value)


def test_only_earlier_reports_are_replaced(tmp_path):
    out = tmp_path / "r.html"
    check_replaceable(out)
    write_report(out, report(session("a")))
    check_replaceable(out)
    (tmp_path / "r.json").write_text('{"words": []}')
    with pytest.raises(SvmError, match=r"r\.json exists and is not an earlier report"):
        check_replaceable(out)
    check_replaceable(out, force=True)
    with pytest.raises(SvmError, match=r"end it with \.html"):
        check_replaceable(tmp_path / "r.txt")


def test_an_address_keeps_no_password():
    assert without_secrets("https://me:secret@host/game.mp4?token=1") == "https://host/game.mp4"
    assert without_secrets("http://[") == "…"
    assert without_secrets("game.mp4") == "game.mp4"
    made = report(session("a", clip="https://me:secret@host/game.mp4?token=1"))
    assert "secret" not in render_page(made) + render_json(made)


def test_times_are_read_as_on_a_clock():
    assert [clock(time) for time in (0, 59.99, 61, 3600)] == ["0:00", "0:59", "1:01", "1:00:00"]
