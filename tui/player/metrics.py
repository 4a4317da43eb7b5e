"""What the gauges show: speed, memory, and how the commentary compares with the truth."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from streaming_vlm_mlx.eval.text_metrics import Errors, Word, compare_words
from streaming_vlm_mlx.memory import Memory
from streaming_vlm_mlx.plain_text import harmless
from streaming_vlm_mlx.stream.events import GenerationResult, Timings
from tui.player.transcript import Transcript, finished_seconds

# Seconds that are compared; a longer window costs more every second and says less about the model now.
WINDOW = 300


@dataclass(frozen=True)
class Comparison:
    """The commentary of the last `WINDOW` seconds, compared with the truth.

    Attributes:
        errors: word errors.
        rouge_l: 0 to 1.
        delay: mean seconds from hearing a true word to showing the matching word; None without a match.
        added: for each second, indices of displayed words that are not in the truth.
        missed: for each second, indices of true words that are not in the commentary.
    """

    errors: Errors
    rouge_l: float
    delay: float | None
    added: dict[int, frozenset[int]]
    missed: dict[int, frozenset[int]]


def compare(transcript: Transcript) -> Comparison:
    """Compare the commentary with the truth of the same seconds; skipped ones count as silence."""
    latest = max((n for n, entry in transcript.entries.items() if not entry.growing), default=0)
    truth: list[Word] = []
    said: list[Word] = []
    # The second of each word, and its index there.
    truth_places: list[tuple[int, int]] = []
    said_places: list[tuple[int, int]] = []
    for number in finished_seconds(transcript, latest - WINDOW):
        entry = transcript.entries[number]
        for place, (start, end, word) in enumerate(transcript.truth.get(number, ())):
            truth.append(Word(start, end, word))
            truth_places.append((number, place))
        shown = float(number) if entry.shown is None else entry.shown
        for place, word in enumerate(harmless(entry.text).split()):
            # An answer is for the viewer and has no counterpart in the truth.
            if place >= entry.answered:
                said.append(Word(shown, shown, word))
                said_places.append((number, place))
    found = compare_words(truth, said)
    return Comparison(
        found.errors,
        found.rouge_l,
        found.delay,
        _grouped(said_places[s] for s in found.added),
        _grouped(truth_places[t] for t in found.missed),
    )


def _grouped(places: Iterable[tuple[int, int]]) -> dict[int, frozenset[int]]:
    grouped: dict[int, set[int]] = {}
    for number, place in places:
        grouped.setdefault(number, set()).add(place)
    return {number: frozenset(group) for number, group in grouped.items()}


# Seconds whose cost is kept.
HISTORY = 60

LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Meter:
    """A gauge: its name, its value, and a note beside it."""

    name: str
    value: str
    note: str = ""


@dataclass
class PlayerMetrics:
    """The values of the gauges.

    Attributes:
        skipped: number of skipped seconds.
        comparison: with the truth, in the mode that shows it.
    """

    skipped: int = 0
    comparison: Comparison | None = None
    _seconds: deque[GenerationResult] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def add(self, done: GenerationResult) -> None:
        """Add the record of a second."""
        self._seconds.append(done)

    @property
    def timings(self) -> list[Timings]:
        """What the last `HISTORY` seconds cost, the oldest first."""
        return [done.timings for done in self._seconds]

    def meters(self, delay: float) -> list[Meter]:
        """Return the gauges, the most important first; `delay` is the current one, in seconds."""
        return [*self._scores(), *self._speed(delay), *self._memory()]

    def _scores(self) -> list[Meter]:
        if self.comparison is None:
            return []
        found = self.comparison
        delay = "–" if found.delay is None else f"{_signed(found.delay)} s"
        return [
            Meter("word errors", f"{found.errors.rate:.0%}", note=f"of {found.errors.words} words"),
            Meter("ROUGE-L", f"{found.rouge_l:.2f}"),
            Meter("word delay", delay),
        ]

    def _speed(self, delay: float) -> list[Meter]:
        speeds = [_per_second(done.tokens, done.timings.decode_ms) for done in self._seconds]
        factors = [_per_second(done.end - done.start, done.timings.total_ms) for done in self._seconds]
        first = [done.timings.first_text_ms for done in self._seconds]
        skipped = f"{self.skipped} skipped" if self.skipped else ""
        return [
            Meter("delay", f"{delay:.1f} s", skipped),
            Meter("speed", _latest(factors, "×{:.1f}")),
            Meter("tokens/s", _latest(speeds, "{:.1f}")),
            Meter("first word", _latest(first, "{:.0f} ms")),
        ]

    def _memory(self) -> list[Meter]:
        if not self._seconds:
            return [Meter(name, "–") for name in ("memory", "MLX", "cache")]
        done = self._seconds[-1]
        # A session that is replayed may hold no measurement.
        m = done.memory or Memory()
        return [
            Meter("memory", size_label(m.process), note=f"of {size_label(m.machine)}"),
            Meter("MLX", _sizes(m.active, m.cache), note=f"peak {size_label(m.peak)}"),
            Meter("cache", f"{done.cache_tokens:,} tokens", note=size_label(done.cache_bytes)),
        ]


def sparkline(values: Iterable[float], width: int) -> str:
    """Return the last `width` of `values` as a line of bars; the largest one is the last of `LEVELS`."""
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    return "".join(
        LEVELS[round((len(LEVELS) - 1) * max(value, 0.0) / top)] if top > 0 else LEVELS[0] for value in shown
    )


def bar(share: float, width: int) -> str:
    """Return a bar of `width` cells, thick up to `share` (0 to 1), in steps of half a cell."""
    whole, half = divmod(round(min(max(share, 0.0), 1.0) * 2 * width), 2)
    return ("━" * whole + "╸" * half).ljust(width, "─")


def _per_second(amount: float, milliseconds: float) -> float:
    return 1e3 * amount / milliseconds if milliseconds > 0 else 0.0


def _latest(values: list[float], form: str) -> str:
    return form.format(values[-1]) if values else "–"


def _signed(seconds: float) -> str:
    """Return `seconds` with a sign and one decimal; zero has no sign."""
    text = f"{seconds:+.1f}"
    return text[1:] if float(text) == 0 else text


def size_label(amount: int) -> str:
    """Return an amount of bytes in GB or MB."""
    unit, name = _unit(amount)
    return f"{_digits(amount / unit)} {name}"


def _sizes(amount: int, more: int) -> str:
    unit, name = _unit(max(amount, more))
    return f"{_digits(amount / unit)} + {_digits(more / unit)} {name}"


def _unit(amount: int) -> tuple[float, str]:
    return (1e9, "GB") if amount >= 1e9 else (1e6, "MB")


def _digits(amount: float) -> str:
    return f"{amount:.1f}" if amount < 10 else f"{amount:.0f}"
