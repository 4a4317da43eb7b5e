"""A minute of `tests.soak`; the long run is a command of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from streaming_vlm_mlx.stream import generate
from streaming_vlm_mlx.stream.pruning import prune
from streaming_vlm_mlx.stream.spans import Spans
from tests.soak import MOST_GROWTH, soak
from tui.player.transcript import Transcript, TranscriptRow
from tui.player.widgets.transcript_view import TranscriptView

# Seconds of the sample that are decoded, of which the clip is made.
LOOP = 12


@pytest.mark.parametrize("per_second", [False, True])
async def test_a_minute_breaks_no_rule(per_second: bool, tmp_path: Path) -> None:
    advanced: list[int] = []
    report = await soak(60, 4, tmp_path, advanced.append, LOOP, per_second)
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


async def test_a_letter_that_the_transcript_lacks_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Transcript.finish
    monkeypatch.setattr(
        Transcript, "finish", lambda self, n, text, question, notes: finish(self, n, text[:-1], question, notes)
    )
    with pytest.raises(AssertionError, match="of the transcript"):
        await soak(30, 4, tmp_path, loop=LOOP)


@pytest.mark.parametrize("per_second", [False, True])
async def test_a_word_that_the_screen_lacks_is_noticed(
    per_second: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay = TranscriptView.replace

    def lose(self: TranscriptView, first: int, last: int, rows: Sequence[TranscriptRow]) -> None:
        lay(self, first, last, [replace(row, said=row.said[:-1]) for row in rows])

    monkeypatch.setattr(TranscriptView, "replace", lose)
    with pytest.raises(AssertionError, match="shown"):
        await soak(30, 4, tmp_path, loop=LOOP, per_second=per_second)
