"""The page in a real browser: what it loads, its width, its colours, and what a reader sees."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx.report.page import render_page
from tests.report.made import reference, report, session
from tests.report.test_page import hostile

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'svm-tui[test]'")
PHONE, DESK = 390, 1280
TEXTS = [f"second {number}: he drives to the basket and scores again" for number in range(12)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium to open the page in; on Debian: apt install chromium")
    # Chromium's sandbox refuses to run as root.
    words = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*words, "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page in the browser, what it asked for, and what went wrong."""

    page: Any
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def open(self, path: Path) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.goto(path.as_uri(), wait_until="load")

    def width(self, viewport: int) -> int:
        """Return the width of the content in a window of `viewport` pixels."""
        self.page.set_viewport_size({"width": viewport, "height": 800})
        return int(self.page.evaluate("document.documentElement.scrollWidth"))

    def style(self, name: str, selector: str = "body") -> str:
        script = "([selector, name]) => getComputedStyle(document.querySelector(selector))[name]"
        return str(self.page.evaluate(script, [selector, name]))


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    page = browser.new_page()
    yield Opened(page)
    page.close()


def write(tmp_path: Path, contents: Any) -> Path:
    path = tmp_path / "r.html"
    path.write_text(render_page(contents), encoding="utf-8")
    return path


def test_a_report_is_read_on_a_phone_and_at_a_desk_by_day_and_by_night(opened: Opened, tmp_path: Path) -> None:
    told = reference(*(text.replace("drives", "walks") for text in TEXTS))
    path = write(tmp_path, report(session(*TEXTS), told=told, pictures=[0.0, 6.0]))
    opened.open(path)
    colours = {}
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        assert opened.width(PHONE) == PHONE
        assert opened.width(DESK) == DESK
        colours[scheme] = [
            opened.style("backgroundColor"),
            opened.style("color"),
            opened.style("backgroundColor", "mark.added"),
            opened.style("fill", ".area.decode"),
        ]
    assert not set(colours["light"]) & set(colours["dark"])
    text = opened.page.inner_text("main")
    for part in ("second 11: he", "drives", "walks", "Word error rate", "vision tower", "KV cache"):
        assert part in text
    box = {name: opened.page.locator(name).first.bounding_box() for name in (".picture", ".talk td", ".reference")}
    assert box[".picture"]["x"] < box[".talk td"]["x"] < box[".reference"]["x"]
    assert opened.page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    # On paper it is as by day.
    opened.page.emulate_media(media="print", color_scheme="dark")
    assert opened.style("backgroundColor") == colours["light"][0]
    assert opened.requests[0] == path.as_uri()
    assert not [url for url in opened.requests[1:] if not url.startswith("data:")]
    assert opened.problems == []


def test_hostile_text_is_shown_and_loads_and_runs_nothing(opened: Opened, tmp_path: Path) -> None:
    path = write(tmp_path, hostile())
    opened.open(path)
    assert opened.page.evaluate("document.scripts.length") == 0
    assert "<script>alert(1)</script>" in opened.page.inner_text("main")
    assert "<img src=https://evil.example/x.png>" in opened.page.inner_text(".talk")
    assert not [url for url in opened.requests[1:] if not url.startswith("data:")]
    assert opened.problems == []
    assert opened.width(PHONE) == PHONE
    assert opened.width(DESK) == DESK


def test_the_policy_of_the_page_would_stop_what_slips_through(opened: Opened, tmp_path: Path) -> None:
    path = write(tmp_path, report(session("he scores")))
    extra = '<script>document.title = "ran"</script><img src="https://evil.example/x.png">'
    path.write_text(path.read_text().replace("</main>", f"{extra}</main>"))
    opened.open(path)
    assert opened.page.title() == "game.mp4"
    refused = [problem for problem in opened.problems if "Content Security Policy" in problem]
    assert len(refused) == 2


def test_many_long_columns_fit(opened: Opened, tmp_path: Path) -> None:
    sessions = [session(*TEXTS, "word" * 60), session(*TEXTS[:6], "x" * 300), session(*TEXTS)]
    names = ["checkpoint-with-a-long-name-1", "y" * 80, "c"]
    opened.open(write(tmp_path, report(*sessions, told=reference(*TEXTS, "z" * 200), columns=names, title="t" * 200)))
    assert opened.width(PHONE) == PHONE
    assert opened.width(DESK) == DESK
    assert opened.problems == []
