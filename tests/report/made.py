"""Sessions and reports that are made by hand."""

import io
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from streaming_vlm_mlx.eval.text_metrics import Word, spread
from streaming_vlm_mlx.memory import Memory
from streaming_vlm_mlx.report.figures import Contents, stretch_of
from streaming_vlm_mlx.report.pictures import Picture
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import GenerationResult, Skipped, Timings

MB = 1_000_000


def second(number: int, text: str, milliseconds: float = 400.0, question: str = "") -> GenerationResult:
    """A second whose vision tower, prefill and decode took 1, 1 and 2 parts of `milliseconds`."""
    part = milliseconds / 4
    return GenerationResult(
        index=number,
        start=float(number),
        end=number + 1.0,
        text=text,
        tokens=10,
        cache_tokens=100 + 10 * number,
        cache_bytes=8 * MB,
        query=question,
        timings=Timings(part, part, 2 * part, 3 * part, milliseconds),
        memory=Memory(active=20 * MB, cache=5 * MB, peak=30 * MB, process=(200 + number) * MB, machine=16_000 * MB),
    )


def session(*texts: str, clip: str = "game.mp4", skipped: Sequence[int] = ()) -> SessionRecord:
    """A session that says `texts`, a second each; the seconds `skipped` have none."""
    numbers = [number for number in range(len(texts) + len(skipped)) if number not in skipped]
    return SessionRecord(
        created="2026-01-02T03:04:05+00:00",
        clip=clip,
        model="run1",
        settings={"window": 8, "sampling": {"seed": 0}},
        versions={"mlx": "0.32"},
        machine={"processor": "M9", "memory_bytes": 16_000 * MB},
        seconds=tuple(second(number, text) for number, text in zip(numbers, texts, strict=True)),
        skipped=tuple(Skipped(number, float(number), number + 1.0) for number in skipped),
    )


def reference(*texts: str) -> tuple[Word, ...]:
    """Words of `texts`, a second each."""
    return tuple(word for number, text in enumerate(texts) for word in spread(text, float(number), number + 1.0))


def picture(time: float) -> Picture:
    """A grey picture."""
    file = io.BytesIO()
    Image.new("RGB", (64, 36), "grey").save(file, "JPEG")
    return Picture(time, 64, 36, file.getvalue())


def report(
    *sessions: SessionRecord,
    told: Sequence[Word] = (),
    columns: Sequence[str] = (),
    pictures: Sequence[float] = (0.0,),
    title: str = "game.mp4",
    notes: Sequence[str] = (),
) -> Contents:
    """A report on a stretch."""
    stretch = replace(stretch_of(title, told, sessions), pictures=tuple(map(picture, pictures)))
    names = tuple(columns) or tuple(f"run{number}" for number in range(1, len(sessions) + 1))
    return Contents(title, names, (stretch,), "2026-01-02T03:04:05+00:00", "svm-tui report game.mp4", tuple(notes))
