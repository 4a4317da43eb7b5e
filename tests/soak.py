"""Hours of a stream in the player, without waiting: random seeks, pauses, questions and settings under a seed.

    python -m tests.soak --hours 6 --seed 1 --json soak.json

The headless player runs with the checkpoint that comes with the package, on a clock that only this program moves. In
each second the session checks its spans and its cache (`tests.stream.watched`), and the journal on disk is compared
with the rows on the screen. The process's memory at the end is compared with that after the first half hour.
"""

import argparse
import asyncio
import json
import math
import os
import random
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    # It runs beside other work; before MLX and its BLAS are loaded.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.backend import prepare
from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.memory import process_memory
from streaming_vlm_mlx.plain_text import harmless
from streaming_vlm_mlx.sessions.journal import load_session
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped
from tests.player.fakes import Clock
from tests.soak_engine import JournalTail, LoopedClip, SoakEngine, change_settings, largest_streams, new_stream
from tests.stream.watched import Checks, watch
from tui.player.app import PlayerApp
from tui.player.pace import PACES
from tui.player.screens.player import PlayerScreen
from tui.player.spec import PlayerSpec
from tui.player.states import State
from tui.player.widgets.transcript_view import MAX_ROWS, TranscriptView

HOUR, HALF_HOUR, MINUTE = 3600, 1800, 60
# Bytes by which memory may grow after the first half hour.
MOST_GROWTH = 20 << 20
# Seconds that each of the largest streams is played.
LARGE = 40
# Seconds that the player gets for what takes milliseconds.
PATIENCE = 120.0
# Seconds of clip, more than are played.
LENGTH = 10 * HOUR + 0.5
QUESTIONS = ("What is the score?", "Who serves?", "Was it in?", "How long was the rally?")


@dataclass
class Report:
    """What a soak did and found; sizes in bytes.

    Attributes:
        seed: of everything random.
        wanted: seconds of stream that were asked for.
        generated: seconds with a result.
        skipped: seconds without one.
        actions: how often the viewer did what.
        checks: what the session checked.
        memory: of the process, by the second of the stream.
        growth: of memory from the first half hour, or half of a shorter run, to the end.
        journal: size of the journal.
        wall: seconds that it took.
        cpu: seconds of processor time.
    """

    seed: int
    wanted: int
    generated: int = 0
    skipped: int = 0
    actions: dict[str, int] = field(default_factory=dict)
    checks: Checks = field(default_factory=Checks)
    memory: dict[int, int] = field(default_factory=dict)
    growth: int = 0
    journal: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    @property
    def seconds(self) -> int:
        """Seconds of stream so far."""
        return self.generated + self.skipped

    def to_json(self) -> str:
        """Return the report as JSON."""
        checks = {**vars(self.checks), "allocations": sorted(self.checks.allocations)}
        return json.dumps({**vars(self), "checks": checks}, indent=1) + "\n"


class Soak:
    """A viewer with a seed, before a player on a clock of its own."""

    def __init__(self, app: PlayerApp, engine: SoakEngine, clock: Clock, folder: Path, report: Report) -> None:
        screen = app.screen_stack[0]
        assert isinstance(screen, PlayerScreen)
        self.screen, self.engine, self.clock, self.report = screen, engine, clock, report
        self.controller, self.head = screen.controller, screen.controller.playhead
        self.view, self.log = screen.query_one(TranscriptView), app.session
        self.random, self.journal = random.Random(report.seed), JournalTail(folder)
        self.asked: list[str] = []
        self.fresh_at = self.report.seconds
        actions: list[tuple[int, Callable[[], Any]]] = [
            (6, self.seek),
            (4, self.break_off),
            (6, self.pause),
            (8, self.ask),
            (8, self.set),
            (2, self.restart),
            (4, self.fall_behind),
            (3, self.change_speed),
            (3, self.change_pace),
            (3, self.step),
            (300, self.watch_on),
        ]
        self.weights, self.actions = zip(*actions, strict=True)

    async def run(self, advance: Callable[[int], None]) -> None:
        """Watch until the wanted seconds have passed; `advance` gets their number."""
        await self.until(lambda: self.controller.state is State.GENERATING)
        if self.report.wanted > HALF_HOUR:
            # What grows later is not because a stream is larger than those before.
            for config in largest_streams(self.engine.config):
                await self.begin(config)
                for _ in range(LARGE):
                    await self.watch_on()
        checked = 0
        while self.report.seconds < self.report.wanted:
            if self.report.seconds >= self.fresh_at:
                await self.restart()
            (action,) = self.random.choices(self.actions, self.weights)
            self.report.actions[action.__name__] = self.report.actions.get(action.__name__, 0) + 1
            await action()
            await self.watch_on()
            advance(self.report.seconds)
            if self.report.seconds >= checked:
                checked = self.report.seconds - self.report.seconds % MINUTE + MINUTE
                self.check_screen()
                self.report.memory[self.report.seconds] = process_memory()

    # What a viewer does.

    async def watch_on(self) -> None:
        """Let a second pass, and compare what it brought."""
        for _ in range(2):
            self.tick(0.5)
        await self.settle()
        if self.head.state == "ended":
            self.screen.action_play()
            await self.settle()

    async def seek(self) -> None:
        """Go a little back or forward, or anywhere."""
        if self.random.random() < 0.7:
            self.screen.action_seek_by(self.random.choice((-30, -5, 5, 30)))
        else:
            self.screen.action_seek_to(self.random.choice((0.0, self.random.random(), self.random.random(), 1.0)))
        await self.settle()

    async def break_off(self) -> None:
        """Seek while a second is being generated, a few tokens into it."""
        self.tick(0.25)
        await self.until(lambda: self.controller.generating or not self.is_behind())
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0.001)
        await self.seek()

    async def pause(self) -> None:
        """Pause for up to 20 seconds, and play on."""
        self.screen.action_play()
        for _ in range(self.random.randrange(20)):
            self.tick(1.0)
            await self.settle()
        if not self.head.playing:
            self.screen.action_play()

    async def ask(self) -> None:
        """Ask about the next second."""
        self.asked.append(f"{self.random.choice(QUESTIONS)} ({self.report.seconds})")
        self.controller.ask(self.asked[-1])

    async def set(self) -> None:
        """Change windows and sampling from the next second on."""
        self.controller.configure(change_settings(self.engine.config, self.random))

    async def restart(self) -> None:
        """Begin a new stream with other settings."""
        config = new_stream(self.engine.config, self.random)
        await self.begin(config)
        # An unbounded stream gets slower with every second.
        is_short = config.mode == "full" or config.sink is None
        self.fresh_at = self.report.seconds + self.random.randrange(20, 40 if is_short else 400)

    async def begin(self, config: StreamConfig) -> None:
        """Begin a new stream with `config`."""
        self.log.configure(config.to_dict())
        self.engine.next_config = config
        self.asked.clear()
        await self.seek()
        # In some states a seek does not reach the model.
        await self.until(lambda: self.engine.next_config is None)

    async def fall_behind(self) -> None:
        """Let seconds pass without waiting for the model."""
        for _ in range(self.random.randrange(2, 12)):
            self.tick(0.5)
            await asyncio.sleep(0)

    async def change_speed(self) -> None:
        """Play faster or slower."""
        self.screen.action_speed(self.random.choice((-2, -1, 1, 2)))

    async def change_pace(self) -> None:
        """Skip seconds, or wait for the model."""
        self.controller.change_pace(self.random.choice(PACES))

    async def step(self) -> None:
        """Play to the end of the second, and on."""
        self.screen.action_step()
        for _ in range(8):
            self.tick(1.0)
            await self.settle()
        if not self.head.playing:
            self.screen.action_play()

    # What is waited for, and compared.

    def tick(self, seconds: float) -> None:
        self.clock.now += seconds
        self.screen.tick()

    def is_behind(self) -> bool:
        """Whether the model has not yet begun a second that is due."""
        state = self.controller.state
        waits = state is State.GENERATING and self.head.playing
        return state is State.SEEKING or (waits and self.engine.finished < math.floor(self.head.position))

    async def settle(self) -> None:
        """Wait until the model is done with what is due, and compare the journal with the screen."""
        await self.until(lambda: not self.controller.generating and not self.is_behind())
        self.compare()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for another thread or task."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)
                has_failed = self.controller.state in (State.FAILED, State.UNAVAILABLE)
                assert not has_failed, self.report.checks.broken or self.log.record.failure

    def compare(self) -> None:
        """Compare what the journal got since the last call with the record and the screen."""
        self.screen.presenter.flush()
        changed: dict[int, GenerationResult | Skipped] = {}
        for line in self.journal.read():
            match line:
                case {"spoken": values}:
                    second = GenerationResult.from_dict(values)
                    changed[second.index] = second
                    self.report.generated += 1
                    self.check_answer(second.query)
                case {"skipped": values}:
                    changed.setdefault(values["index"], Skipped.from_dict(values))
                    self.report.skipped += 1
                case {"failure": message}:
                    raise AssertionError(self.report.checks.broken or message)
                case {"settings": settings}:
                    assert settings.keys() == self.log.record.settings.keys()
        for number, second in changed.items():
            self.check_second(number, second)

    def check_answer(self, question: str) -> None:
        """Check that questions are answered in order, each once."""
        if question:
            assert question in self.asked
            lost = self.asked.index(question)
            assert not lost, f"{self.asked[:lost]} got no answer"
            del self.asked[0]

    def check_second(self, number: int, second: GenerationResult | Skipped) -> None:
        """Check that the record and the screen have `second` as the journal has it."""
        record, entry = self.log.record, self.screen.presenter.transcript.entries[number]
        if isinstance(second, Skipped):
            assert entry.skipped
            assert second in record.skipped[bisect_left(record.skipped, second.start, key=lambda s: s.start) :][:1]
            return
        at = bisect_left(record.seconds, second.start, key=lambda s: s.start)
        assert record.seconds[at] == second
        shown = entry.text, entry.question, entry.growing
        assert shown == (second.text, second.query, False), f"second {number} of the transcript: {shown}"
        if number <= self.head.position:
            borders = self.borders()
            at = bisect_right(borders, number)
            first, last = borders[at - 1] if at else 0, borders[at] if at < len(borders) else self.end()
            assert number < last or not any(content([second])), f"second {number} is not shown"
            self.check_rows(first, last)

    def borders(self) -> list[int]:
        """Return the seconds that a row of the screen begins with; a sentence may begin within one."""
        return [row.number for row in self.view.rows if row.said and row.place == 0]

    def end(self) -> int:
        """Return the second behind the last row."""
        return max((row.number + row.seconds for row in self.view.rows), default=0)

    def check_rows(self, first: int, last: int) -> None:
        """Check that the screen has all words and questions of the seconds from `first` to before `last`."""
        record = self.log.record.seconds
        start, end = (bisect_left(record, second, key=lambda s: s.start) for second in (first, last))
        kept = content(islice(record, start, end))
        rows = [row for row in self.view.rows if first <= row.number < last]
        shown = [word for row in rows for word in row.said], [(r.number, r.question) for r in rows if r.question]
        assert shown == kept, f"seconds {first} to {last} at {self.head.position}: {shown} shown, {kept} kept"

    def check_screen(self) -> None:
        """Check all rows that the screen keeps, and that it keeps enough."""
        self.screen.presenter.tick()
        position, rows = self.head.position, self.view.rows
        if borders := self.borders():
            self.check_rows(borders[0], self.end())
        entries = self.screen.presenter.transcript.entries
        known = sorted(n for n, entry in entries.items() if n <= position and (entry.skipped or entry.text.split()))
        if known:
            assert rows[0].number <= known[-(MAX_ROWS // 2) :][0], f"{len(rows)} rows from {rows[0].number}"
        dimmed = {row.number for row in rows if row.later}
        reached = {n for row in rows if row.said for n in range(row.number, row.number + row.seconds)} - dimmed
        assert min(dimmed, default=math.inf) > position >= max(reached, default=0), f"{dimmed} dimmed at {position}"


def content(seconds: Iterable[GenerationResult]) -> tuple[list[str], list[tuple[int, str]]]:
    """Return the words of `seconds`, and their questions."""
    words, questions = list[str](), list[tuple[int, str]]()
    for second in seconds:
        words += harmless(second.text).split()
        questions += [(second.index, " ".join(second.query.split()))] if second.query.split() else []
    return words, questions


async def soak(
    seconds: int,
    seed: int,
    folder: Path,
    advance: Callable[[int], None] = lambda _: None,
    loop: int = 40,
    per_second: bool = False,
) -> Report:
    """Play `seconds` of a clip that repeats the first `loop` seconds of the sample, and return the report.

    The screen shows sentences or, with `per_second`, seconds. The session is saved in `folder`.

    Raises:
        AssertionError: something is not as it should be.
    """
    report, clock = Report(seed, seconds), Clock()
    clip = LoopedClip(LENGTH, loop)
    engine = SoakEngine(seed)
    spec = PlayerSpec(
        clip="soak",
        model="matches",
        size=clip.size,
        seconds=clip,
        open_grabber=None,
        make=lambda _: engine,
        config=engine.config,
        read_truth=None,
        record=SessionRecord(clip="soak", settings=engine.config.to_dict()),
        base_paths=(folder / "soak",),
        endings=(".json",),
        per_second=per_second,
    )
    begun, cpu = time.perf_counter(), time.process_time()
    app = PlayerApp(spec, clock=clock, auto_tick=False)
    with mock.patch("streaming_vlm_mlx.stream.async_engine.Session", watch(report.checks)):
        async with app.run_test(size=(80, 24)):
            viewer = Soak(app, engine, clock, folder, report)
            await viewer.run(advance)
            viewer.check_screen()
    report.wall, report.cpu = time.perf_counter() - begun, time.process_time() - cpu
    since = min(HALF_HOUR, seconds // 2)
    base = next(size for second, size in report.memory.items() if second >= since)
    report.growth = [*report.memory.values()][-1] - base
    assert viewer.journal.path is not None
    report.journal = viewer.journal.path.stat().st_size
    assert load_session(viewer.journal.path) == app.session.record
    (saved,) = app.session.save()
    assert load_session(saved) == app.session.record
    app.session.close()
    return report


def main() -> int:
    """Run a soak as the command line says; return 0 where memory stayed flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=6.0, help="of stream time (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--per-second", action="store_true", help="show seconds instead of sentences")
    parser.add_argument("--json", type=Path, metavar="F", help="write the report to F")
    args = parser.parse_args()
    prepare()
    columns = (TextColumn("{task.completed:,.0f} of {task.total:,.0f} s of stream"), BarColumn(), TaskProgressColumn())
    progress = Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with progress, tempfile.TemporaryDirectory() as folder:
        task = progress.add_task("", total=args.hours * HOUR)
        run = soak(
            round(args.hours * HOUR),
            args.seed,
            Path(folder),
            lambda done: progress.update(task, completed=done),
            per_second=args.per_second,
        )
        report = asyncio.run(run)
    if args.json:
        write_text(args.json, report.to_json())
    print(
        f"{report.generated:,} seconds generated, {report.skipped:,} skipped, {report.checks.cut:,} cut short, "
        f"{report.checks.resets:,} streams; memory grew by {report.growth / 2**20:.1f} MiB to "
        f"{[*report.memory.values()][-1] / 2**20:.0f} MiB; {report.wall:.0f} s, {report.cpu:.0f} s of processor"
    )
    return int(report.growth > MOST_GROWTH)


if __name__ == "__main__":
    raise SystemExit(main())
