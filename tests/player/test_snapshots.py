"""The main screens as they look, compared with pictures in tests/snapshots.

After an intended change, ``SVM_TUI_SNAPSHOTS=write python -m pytest tests/player/test_snapshots.py`` writes new ones.
Look at them before you commit them.
"""

import math
import os
import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tests.player.fakes import Blank, Clock, Scripted, press, spec, until, wait
from tui.player.app import PlayerApp
from tui.player.screens.player import PlayerScreen
from tui.player.transcript import Timed
from tui.player.widgets.cache_strip import CacheStrip

FOLDER = Path(__file__).parents[1] / "snapshots"
SIZES = [(80, 24), (120, 40), (200, 60)]

SAID = {
    0: "Blue serves wide to the forehand",
    1: "and comes in behind it,",
    2: "",
    3: "the volley is short!",
    4: "White has time, goes cross-court",
    5: "and that's past him, fifteen all",
}
TRUE = ["Blue serves wide", "to the forehand and comes in", "", "the volley is short", "White goes down the line"]
TRUTH: tuple[Timed, ...] = tuple(
    (second + place / 8, second + (place + 1) / 8, word)
    for second, line in enumerate([*TRUE, "fifteen all"])
    for place, word in enumerate(line.split())
)


def canonical(svg: str) -> str:
    """Return `svg` without the number that Rich gives every picture."""
    return re.sub(r"terminal-\d+", "terminal", svg)


def check(name: str, svg: str, kept: Path) -> None:
    """Compare with the picture that is kept, or keep a new one; leave the new one in `kept` when they differ."""
    path, svg = FOLDER / f"{name}.svg", canonical(svg)
    if os.environ.get("SVM_TUI_SNAPSHOTS") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(svg)
    expected = path.read_text() if path.exists() else ""
    if svg != expected:
        (kept / path.name).write_text(svg)
    assert svg == expected, f"{kept / path.name} does not look like {path}"


async def watch(pilot: Pilot[None], engine: Scripted, clock: Clock) -> PlayerScreen:
    """StartPlayer six seconds, the model too slow for one of them, and stop within the next."""
    screen = pilot.app.screen
    assert isinstance(screen, PlayerScreen)
    await until(lambda: screen.presenter.transcript.truth)
    for number in (0, 1, 2, 3):
        await engine.until_spoken(number)
        await tick(screen, clock, 1.0)
    await engine.until_spoken(4)
    engine.free.clear()
    await tick(screen, clock, 1.0)
    await engine.until_begun(5)
    await tick(screen, clock, 2.25)
    engine.free.set()
    await engine.until_spoken(7)
    await tick(screen, clock, 0.25)
    screen.controller.playhead.pause()
    screen.presenter.tick()
    screen.query_one(CacheStrip).tick(math.inf)
    await wait(pilot)
    return screen


async def tick(screen: PlayerScreen, clock: Clock, seconds: float) -> None:
    for _ in range(round(4 * seconds)):
        clock.now += 0.25
        screen.tick()


LOOKS = [(name, keys, size) for size in SIZES for name, keys in (("beside", []), ("differences", ["g"]))]
LOOKS += [("alone", ["g", "g"], SIZES[0]), ("help", ["question_mark"], SIZES[0])]
LOOKS += [("ask", ["slash", *"who leads"], SIZES[0])]


@pytest.mark.parametrize(("name", "keys", "size"), LOOKS)
async def test_screens_look_as_they_did(name: str, keys: list[str], size: tuple[int, int], tmp_path: Path) -> None:
    engine, clock = Scripted(SAID), Clock()
    shown = spec(lambda note: engine, tmp_path, Blank(40.0), read_truth=lambda note: TRUTH, per_second=False)
    app = PlayerApp(shown, clock=clock, auto_tick=False)
    async with app.run_test(size=size) as pilot:
        await watch(pilot, engine, clock)
        await press(pilot, *keys)
        if name == "ask":
            # A cursor that blinks is no matter of looks.
            app.screen.query_one("PromptLine").cursor_blink = False
            await wait(pilot)
        check(f"{name}-{size[0]}x{size[1]}", app.export_screenshot(), tmp_path)


async def test_a_failure_looks_as_it_did(tmp_path: Path) -> None:
    engine, clock = Scripted(failure="checkpoints/run1/model.safetensors is cut short; copy it again."), Clock()
    app = PlayerApp(spec(lambda note: engine, tmp_path, Blank(40.0)), clock=clock, auto_tick=False)
    async with app.run_test(size=(80, 24)) as pilot:
        assert isinstance(app.screen, PlayerScreen)
        notice = app.screen.query_one("#notice")
        await until(lambda: notice.has_class("-failure"))
        app.screen.presenter.tick()
        await wait(pilot)
        check("failure-80x24", app.export_screenshot(), tmp_path)


async def test_daylight_looks_as_it_did(tmp_path: Path) -> None:
    engine, clock = Scripted(SAID), Clock()
    shown = spec(lambda note: engine, tmp_path, Blank(40.0), read_truth=lambda note: TRUTH, per_second=False)
    app = PlayerApp(shown, theme="daylight", clock=clock, auto_tick=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await watch(pilot, engine, clock)
        check("daylight-120x40", app.export_screenshot(), tmp_path)
