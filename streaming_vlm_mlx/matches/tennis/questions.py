"""A viewer's questions about a second of a match, and their answers, which the pictures show.

The longest answer is the description of a second in one sentence: who plays where, the ball, the scoreboard, and the
play. Commentary names each fact only now and then; a description names all of them, so a model that is trained on the
description of every second learns quickly where to look. It also draws the conclusions that commentary needs: who wins
the point or the game. While the ball is not in play, it names the games after the points.
"""

from collections.abc import Callable, Iterator
from math import ceil, floor

import numpy as np

from streaming_vlm_mlx.matches.match_truth import BoardState, Event, Question, Truth, stream
from streaming_vlm_mlx.matches.speech import sentence
from streaming_vlm_mlx.matches.tennis.rules import COUNT_WORDS, POINT_TEXTS, POINT_WORDS, SETS_TO_WIN

# Seconds. READY: the server stands ready before the serve. PLAIN: an ending or a run to the net becomes visible. FRESH:
# an ending comes before everything else. NAMED: an ending is named. CALLED: a game is given as the umpire calls it.
READY, PLAIN, FRESH, NAMED, CALLED = 2.4, 0.4, 2.0, 2.0, 4.0
ENDED = {
    **{kind: kind for kind in ("ace", "winner", "net", "out", "fault")},
    "double_fault": "double fault",
}
WON = ("ace", "winner")
PLAYED = ("serve", "shot")


def description(truth: Truth, time: float) -> str:
    """Return what the picture shows at `time`: the same facts in the same order for every second."""
    near, far = players(truth, time)
    forward = [p for p in (near, far) if _came_forward(truth, p, time)]
    ends = ", ".join(f"{p} {end}{' forward' if p in forward else ''}" for p, end in ((near, "near"), (far, "far")))
    server = truth.board_at(time).server
    return f"{ends}, {ball(truth, time)}, {server} serves, {standing(truth, time)}, {play(truth, time)}"


def players(truth: Truth, time: float) -> tuple[str, str]:
    """Return the kit at the near end and the kit at the far end."""
    near = 0 if truth.frames.ends[0][truth.frame_at(time)] else 1
    return truth.kits[near], truth.kits[1 - near]


def ball(truth: Truth, time: float) -> str:
    """Return the part of the picture with the ball."""
    x, y, visible = truth.frames.ball[truth.frame_at(time)]
    if not visible:
        return "out of sight"
    across = ("left", "middle", "right")[3 * x // truth.size[0]]
    return f"{'upper' if 2 * y < truth.size[1] else 'lower'} {across}"


def score(truth: Truth, state: BoardState) -> str:
    """Return the points as the umpire calls them, the server's first."""
    server = truth.kits.index(state.server)
    mine, other = state.fields["points"][server], state.fields["points"][1 - server]
    if "AD" in (mine, other):
        return f"advantage {truth.kits[server if mine == 'AD' else 1 - server]}"
    if not {mine, other} <= set(POINT_TEXTS) or state.fields["games"] == ("6", "6"):
        return _counts(mine, other)
    if mine == other:
        return "deuce" if mine == "40" else f"{_points(mine)} all"
    return f"{_points(mine)} {_points(other)}"


def standing(truth: Truth, time: float) -> str:
    """Return the points, and the games while the ball is not in play, the server's first.

    After a game it is what the umpire calls, ``game red``: a small model repeats its notes, and rarely draws a
    conclusion from them.
    """
    state = truth.board_at(time)
    last = _last(truth, time)
    points = score(truth, state)
    if last is not None:
        if last.kind in PLAYED:
            return points
        if last.kind != "fault" and last.time < state.time <= time <= last.time + CALLED:
            points = _game(truth, state, last) or points
    first, second = state.fields["games"] if state.server == truth.kits[0] else reversed(state.fields["games"])
    return f"{points} at {_counts(first, second)}"


def _game(truth: Truth, state: BoardState, ending: Event) -> str:
    """Return who won the game, set or match that `ending` decided; empty if it decided none."""
    if any(points != "0" for points in state.fields["points"]):
        return ""
    over = str(SETS_TO_WIN) in state.fields["sets"]
    new_set = state.fields["games"] == ("0", "0")
    return f"game{' set and match' if over else ' and set' if new_set else ''} {_winner(truth, ending)}"


def _winner(truth: Truth, ending: Event) -> str:
    return ending.player if ending.kind in WON else truth.kits[1 - truth.kits.index(ending.player)]


def _counts(first: str, second: str) -> str:
    return f"{COUNT_WORDS[int(first)]} {'all' if first == second else COUNT_WORDS[int(second)]}"


def _points(text: str) -> str:
    return POINT_WORDS[POINT_TEXTS.index(text)]


def play(truth: Truth, time: float) -> str:
    """Return the play: the last stroke of a rally, the ending of a point and its winner, or who gets ready to serve."""
    last = _last(truth, time)
    coming = next((e for e in truth.events if e.kind == "serve" and e.time > time), None)
    settled = last is None or (last.kind in ENDED and time - last.time > FRESH)
    if settled and coming is not None and coming.time - time <= READY:
        return f"{coming.player} ready {'again' if coming.detail == 'second' else 'to serve'}"
    if last is None:
        return "a pause"
    if last.kind in PLAYED:
        return f"{last.player} {last.stroke}"
    return _ended(truth, last) if time - last.time <= NAMED else "a pause"


def _ended(truth: Truth, event: Event) -> str:
    ending = f"{event.player} {ENDED[event.kind]}"
    if event.kind == "fault":
        return ending
    return f"{ending} for {_winner(truth, event)}"


def _came_forward(truth: Truth, player: str, time: float) -> bool:
    """Return whether a player followed a stroke to the net in the rally at `time`."""
    begun = max((e.time for e in truth.events if e.kind == "serve" and e.time <= time), default=0.0)
    rally = [e for e in truth.events if begun <= e.time and e.time + PLAIN <= time]
    over = any(e.kind in ENDED for e in rally)
    return not over and any(e.detail == "approach" and e.player == player for e in rally)


def _last(truth: Truth, time: float) -> Event | None:
    """Return the latest stroke, or the latest ending that is visible by now."""
    found = [e for e in truth.events if e.kind in (*PLAYED, *ENDED)]
    seen = [e for e in found if e.time + (PLAIN if e.kind in ENDED else 0.0) <= time]
    return seen[-1] if seen else None


# Answers refer to this moment of a second: its last frame, at two frames a second.
MOMENT = 0.5
# Seconds after which a stroke is no longer the last one.
REMEMBERED = 2.5
DESCRIPTION = "What do you see?"

Answer = Callable[[Truth, float], str]


def questions(truth: Truth, every: float) -> tuple[Question, ...]:
    """Return one question in each stretch of `every` seconds, at least 1; the clip's seed draws the second."""
    rng = stream(truth.seed, "questions")
    return tuple(_asked(truth, every, rng))


def descriptions(truth: Truth) -> tuple[Question, ...]:
    """Return the question for a description, and the description, for each whole second."""
    seconds = range(floor(truth.seconds))
    return tuple((s + 0.1, s + 0.9, DESCRIPTION, sentence(description(truth, s + MOMENT))) for s in seconds)


def _asked(truth: Truth, every: float, rng: np.random.Generator) -> Iterator[Question]:
    start = 0.0
    while start + every <= truth.seconds:
        second = int(rng.integers(ceil(start), max(floor(start + every), ceil(start) + 1)))
        kinds = list(QUESTIONS)
        wordings, answer = QUESTIONS[kinds[rng.integers(len(kinds))]]
        said = answer(truth, second + MOMENT)
        wording = wordings[rng.integers(len(wordings))]
        if said and second + 1 <= truth.seconds:
            yield second + 0.1, second + 0.9, wording, sentence(said)
        start += every


def _score(truth: Truth, time: float) -> str:
    return score(truth, truth.board_at(time))


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
    return players(truth, time)[0]


def _far(truth: Truth, time: float) -> str:
    return players(truth, time)[1]


def _players(truth: Truth, time: float) -> str:
    return " and ".join(players(truth, time))


def _last_stroke(truth: Truth, time: float) -> Event | None:
    found = [e for e in truth.events if e.kind in ("serve", "shot") and time - REMEMBERED <= e.time <= time]
    return found[-1] if found else None


def _hitter(truth: Truth, time: float) -> str:
    last = _last_stroke(truth, time)
    return last.player if last else "nobody"


def _stroke(truth: Truth, time: float) -> str:
    last = _last_stroke(truth, time)
    return f"a {last.stroke}" if last else "none"


QUESTIONS: dict[str, tuple[tuple[str, ...], Answer]] = {
    "score": (("What is the score?", "What's the score?", "How do they stand?"), _score),
    "games": (("What about the games?", "Who leads in games?"), _games),
    "sets": (("What about the sets?", "How many sets have they won?"), _sets),
    "server": (("Who serves?", "Who is serving?", "Whose serve is it?"), _server),
    "near": (("Who is at the near end?", "Who plays near us?"), _near),
    "far": (("Who is at the far end?", "Who plays on the far side?"), _far),
    "players": (("Who is playing?", "Who are they?"), _players),
    "ball": (("Where is the ball?", "Where's the ball?"), ball),
    "hitter": (("Who hit it?", "Who hit the ball last?"), _hitter),
    "description": ((DESCRIPTION,), description),
    "stroke": (("What was that?", "What stroke was that?"), _stroke),
}
