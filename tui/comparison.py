"""The commentary beside the truth: which words differ, and how far both are apart."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from streaming_vlm_mlx.measure.scores import Errors, align, count_errors, mean_delay, plain_words, rouge_l
from tui.transcript import Transcript, harmless, spoken_numbers

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
