"""A minute of `tests.soak`; the long run is a command of its own."""

from pathlib import Path

import pytest

from streaming_vlm_mlx.stream import generate
from streaming_vlm_mlx.stream.pruning import prune
from streaming_vlm_mlx.stream.spans import Spans
from tests.soak import MOST_GROWTH, soak
from tui.player.transcript import Transcript

# Seconds of the sample that are decoded, of which the clip is made.
LOOP = 12


async def test_a_minute_breaks_no_rule(tmp_path: Path) -> None:
    advanced: list[int] = []
    report = await soak(60, 4, tmp_path, advanced.append, LOOP)
    assert report.seconds >= 60
    assert advanced == sorted(advanced)
    assert advanced[-1] == report.seconds
    # What the player dropped after a seek was checked as well.
    assert report.checks.seconds >= report.generated > report.skipped
    assert report.checks.resets > 1
    assert report.growth <= MOST_GROWTH


async def test_a_span_that_stays_too_long_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(spans: Spans, now: int, config: generate.StreamConfig) -> tuple[Spans, Spans]:
        return prune(spans, max(now - 1, 0), config)

    monkeypatch.setattr(generate, "prune", lazy)
    with pytest.raises(AssertionError, match="_check_start"):
        await soak(30, 4, tmp_path, loop=LOOP)


async def test_a_word_that_the_screen_lacks_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Transcript.finish
    monkeypatch.setattr(Transcript, "finish", lambda self, n, text, question: finish(self, n, text[:-1], question))
    with pytest.raises(AssertionError):
        await soak(30, 4, tmp_path, loop=LOOP)
