"""The commentary beside the truth: which words differ, and how far both are apart."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from streaming_vlm_mlx.eval.text_metrics import Errors, align, count_errors, mean_delay, plain_words, rouge_l
from streaming_vlm_mlx.memory import Memory
from streaming_vlm_mlx.stream.events import GenerationResult
from tui.player.transcript import Transcript, harmless, spoken_numbers

# Seconds that are compared; more would cost more each second, and tell less of how the model does now.
WINDOW = 300


@dataclass(frozen=True)
class Comparison:
    """How the commentary of the last `WINDOW` seconds does.

    Attributes:
        errors: counted in words.
        rouge_l: 0 to 1.
        delay: seconds that matching words are shown later than they are heard in the truth; None when none matches.
        said_off: for each second, places of displayed words that the truth does not have.
        truth_off: for each second, places of true words that were not said.
    """

    errors: Errors
    rouge_l: float
    delay: float | None
    said_off: dict[int, frozenset[int]]
    truth_off: dict[int, frozenset[int]]


@dataclass
class _Words:
    """Words to compare, each with the second and the place that it is displayed at, and its time."""

    plain: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, text: str, number: int, place: int, time: float) -> None:
        """Add a displayed word: none, one or several to compare."""
        for word in plain_words(text):
            self.plain.append(word)
            self.places.append((number, place))
            self.times.append(time)


def compare(transcript: Transcript) -> Comparison:
    """Compare what was said with the truth of the same seconds; those passed over count as silence."""
    latest = max((n for n, entry in transcript.entries.items() if not entry.growing), default=0)
    truth, said = _Words(), _Words()
    for number in spoken_numbers(transcript, latest - WINDOW):
        entry = transcript.entries[number]
        for place, (start, _, word) in enumerate(transcript.truth.get(number, ())):
            truth.add(word, number, place, start)
        for place, word in enumerate(harmless(entry.text).split()):
            # An answer is for the viewer; the truth knows nothing of it.
            if place >= entry.answered:
                said.add(word, number, place, float(number) if entry.shown is None else entry.shown)
    pairs = align(truth.plain, said.plain)
    off = [(t, s) for t, s in pairs if t is None or s is None or truth.plain[t] != said.plain[s]]
    return Comparison(
        count_errors(truth.plain, said.plain, pairs),
        rouge_l(truth.plain, said.plain),
        mean_delay(truth.plain, said.plain, (truth.times, said.times), pairs),
        _grouped(said.places[s] for _, s in off if s is not None),
        _grouped(truth.places[t] for t, _ in off if t is not None),
    )


def _grouped(places: Iterable[tuple[int, int]]) -> dict[int, frozenset[int]]:
    grouped: dict[int, set[int]] = {}
    for number, place in places:
        grouped.setdefault(number, set()).add(place)
    return {number: frozenset(group) for number, group in grouped.items()}


# Seconds that a gauge remembers.
HISTORY = 60

LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Meter:
    """A gauge: its name, what it shows now, and a line of history, a share from 0 to 1, or a word beside it."""

    name: str
    value: str
    history: tuple[float, ...] = ()
    share: float | None = None
    note: str = ""


@dataclass
class PlayerMetrics:
    """What the gauges show.

    Attributes:
        skipped: seconds that the model had no time for.
        comparison: with the truth, where that is asked for.
    """

    skipped: int = 0
    comparison: Comparison | None = None
    _seconds: deque[GenerationResult] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _delays: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def add(self, done: GenerationResult, delay: float) -> None:
        """Enter a second that was spoken, and how far the commentary was behind then."""
        self._seconds.append(done)
        self._delays.append(delay)

    def meters(self, delay: float) -> list[Meter]:
        """Return the gauges, the most telling first; `delay` is the one of this moment, in seconds."""
        return [*self._scores(), *self._speed(delay), *self._memory()]

    def _scores(self) -> list[Meter]:
        if self.comparison is None:
            return []
        found = self.comparison
        delay = "–" if found.delay is None else f"{found.delay:+.1f} s"
        return [
            Meter("word errors", f"{found.errors.rate:.0%}", note=f"of {found.errors.words} words"),
            Meter("ROUGE-L", f"{found.rouge_l:.2f}", share=found.rouge_l),
            Meter("delay", delay),
        ]

    def _speed(self, delay: float) -> list[Meter]:
        speeds = [_per_second(done.tokens, done.timings.decode_ms) for done in self._seconds]
        factors = [_per_second(done.end - done.start, done.timings.total_ms) for done in self._seconds]
        first = [done.timings.first_text_ms for done in self._seconds]
        skipped = f"{self.skipped} passed" if self.skipped else ""
        return [
            Meter("tokens/s", _latest(speeds, "{:.1f}"), tuple(speeds)),
            Meter("real time", _latest(factors, "×{:.1f}"), tuple(factors)),
            Meter("first word", _latest(first, "{:.0f} ms"), tuple(first)),
            Meter("behind", f"{delay:.1f} s", () if skipped else tuple(self._delays), note=skipped),
        ]

    def _memory(self) -> list[Meter]:
        if not self._seconds:
            return [Meter(name, "–") for name in ("memory", "MLX", "cache")]
        done = self._seconds[-1]
        # A session that is replayed may hold no measurement.
        m = done.memory or Memory()
        share = m.process / m.machine if m.machine else None
        return [
            Meter("memory", _size(m.process), share=share, note=f"of {_size(m.machine)}"),
            Meter("MLX", _sizes(m.active, m.cache), note=f"peak {_size(m.peak)}"),
            Meter("cache", f"{done.cache_tokens:,} tokens", note=_size(done.cache_bytes)),
        ]


def sparkline(values: Iterable[float], width: int, levels: str = LEVELS) -> str:
    """Return the last `width` of `values` as a line of bars, the largest of them the last of `levels`."""
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    return "".join(
        levels[round((len(levels) - 1) * max(value, 0.0) / top)] if top > 0 else levels[0] for value in shown
    )


def bar(share: float, width: int) -> str:
    """Return a bar of `width` cells, drawn thick up to `share` (0 to 1) by halves of a cell."""
    whole, half = divmod(round(min(max(share, 0.0), 1.0) * 2 * width), 2)
    return ("━" * whole + "╸" * half).ljust(width, "─")


def _per_second(amount: float, milliseconds: float) -> float:
    return 1e3 * amount / milliseconds if milliseconds > 0 else 0.0


def _latest(values: list[float], form: str) -> str:
    return form.format(values[-1]) if values else "–"


def _size(amount: int) -> str:
    unit, name = _unit(amount)
    return f"{_digits(amount / unit)} {name}"


def _sizes(amount: int, more: int) -> str:
    unit, name = _unit(max(amount, more))
    return f"{_digits(amount / unit)} + {_digits(more / unit)} {name}"


def _unit(amount: int) -> tuple[float, str]:
    return (1e9, "GB") if amount >= 1e9 else (1e6, "MB")


def _digits(amount: float) -> str:
    return f"{amount:.1f}" if amount < 10 else f"{amount:.0f}"
