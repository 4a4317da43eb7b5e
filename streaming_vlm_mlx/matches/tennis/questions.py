"""What a viewer may ask about a second of a match, and the answers: all of them can be seen in its pictures."""

from collections.abc import Callable, Iterator
from math import ceil, floor

import numpy as np

from streaming_vlm_mlx.matches.speech import sentence
from streaming_vlm_mlx.matches.tennis import description
from streaming_vlm_mlx.matches.tennis.rules import COUNT_WORDS
from streaming_vlm_mlx.matches.truth import Event, Question, Truth, stream

# The moment of a second that answers are about: its last picture's, at two a second.
MOMENT = 0.5
# A stroke is remembered for so long, in seconds.
REMEMBERED = 2.5
DESCRIPTION = "What do you see?"

Answer = Callable[[Truth, float], str]


def questions(truth: Truth, every: float) -> tuple[Question, ...]:
    """Return one question in each stretch of `every` seconds, 1 or more, at a second that the clip's seed draws."""
    rng = stream(truth.seed, "questions")
    return tuple(_asked(truth, every, rng))


def descriptions(truth: Truth) -> tuple[Question, ...]:
    """Return the question what is to be seen, and its answer, for each whole second."""
    seconds = range(floor(truth.seconds))
    return tuple((s + 0.1, s + 0.9, DESCRIPTION, sentence(description.description(truth, s + MOMENT))) for s in seconds)


def _asked(truth: Truth, every: float, rng: np.random.Generator) -> Iterator[Question]:
    start = 0.0
    while start + every <= truth.seconds:
        second = int(rng.integers(ceil(start), max(floor(start + every), ceil(start) + 1)))
        kinds = list(ASKED)
        wordings, answer = ASKED[kinds[rng.integers(len(kinds))]]
        said = answer(truth, second + MOMENT)
        wording = wordings[rng.integers(len(wordings))]
        if said and second + 1 <= truth.seconds:
            yield second + 0.1, second + 0.9, wording, sentence(said)
        start += every


def _score(truth: Truth, time: float) -> str:
    return description.score(truth, truth.board_at(time))


def _games(truth: Truth, time: float) -> str:
    first, second = (int(n) for n in truth.board_at(time).fields["games"])
    if first == second:
        return f"{COUNT_WORDS[first]} all"
    leader = truth.kits[0 if first > second else 1]
    return f"{leader} {COUNT_WORDS[max(first, second)]} {COUNT_WORDS[min(first, second)]}"


def _sets(truth: Truth, time: float) -> str:
    first, second = truth.board_at(time).fields["sets"]
    return f"{COUNT_WORDS[int(first)]} for {truth.kits[0]}, {COUNT_WORDS[int(second)]} for {truth.kits[1]}"


def _server(truth: Truth, time: float) -> str:
    return truth.board_at(time).server


def _near(truth: Truth, time: float) -> str:
    return description.players(truth, time)[0]


def _far(truth: Truth, time: float) -> str:
    return description.players(truth, time)[1]


def _players(truth: Truth, time: float) -> str:
    return " and ".join(description.players(truth, time))


def _last_stroke(truth: Truth, time: float) -> Event | None:
    found = [e for e in truth.events if e.kind in ("serve", "shot") and time - REMEMBERED <= e.time <= time]
    return found[-1] if found else None


def _hitter(truth: Truth, time: float) -> str:
    last = _last_stroke(truth, time)
    return last.player if last else "nobody"


def _stroke(truth: Truth, time: float) -> str:
    last = _last_stroke(truth, time)
    return f"a {last.stroke}" if last else "none"


ASKED: dict[str, tuple[tuple[str, ...], Answer]] = {
    "score": (("What is the score?", "What's the score?", "How do they stand?"), _score),
    "games": (("What about the games?", "Who leads in games?"), _games),
    "sets": (("What about the sets?", "How many sets have they won?"), _sets),
    "server": (("Who serves?", "Who is serving?", "Whose serve is it?"), _server),
    "near": (("Who is at the near end?", "Who plays near us?"), _near),
    "far": (("Who is at the far end?", "Who plays on the far side?"), _far),
    "players": (("Who is playing?", "Who are they?"), _players),
    "ball": (("Where is the ball?", "Where's the ball?"), description.ball),
    "hitter": (("Who hit it?", "Who hit the ball last?"), _hitter),
    "sight": ((DESCRIPTION,), description.description),
    "stroke": (("What was that?", "What stroke was that?"), _stroke),
}
