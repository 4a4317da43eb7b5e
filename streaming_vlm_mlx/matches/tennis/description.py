"""What a second of a match shows, in one sentence: who plays where, the ball, the scoreboard, and what goes on.

Commentary names a fact now and then. This sentence names all of them, so that a model which is asked for it in every
second learns in minutes where in a picture to look for what. It also draws the conclusions that commentary needs, whose
point or game it is, and while the ball is not in play it tells the games beside the points.
"""

from streaming_vlm_mlx.matches.tennis.rules import COUNT_WORDS, POINT_TEXTS, POINT_WORDS, SETS_TO_WIN
from streaming_vlm_mlx.matches.truth import BoardState, Event, Truth

# A server stands ready so long before the serve. An ending, or a run to the net, is plain so long after it; an ending
# then comes before all else, and is old news after a while. So long after it a game is what the umpire calls.
READY, PLAIN, FRESH, TOLD, CALLED = 2.4, 0.4, 2.0, 2.0, 4.0
ENDED = {
    **{kind: kind for kind in ("ace", "winner", "net", "out", "fault")},
    "double_fault": "double fault",
}
WON = ("ace", "winner")
PLAYED = ("serve", "shot")


def description(truth: Truth, time: float) -> str:
    """Return what can be seen at `time`, the same facts in the same order for every second."""
    near, far = players(truth, time)
    forward = [p for p in (near, far) if _came_forward(truth, p, time)]
    ends = ", ".join(f"{p} {end}{' forward' if p in forward else ''}" for p, end in ((near, "near"), (far, "far")))
    server = truth.board_at(time).server
    return f"{ends}, {ball(truth, time)}, {server} serves, {standing(truth, time)}, {play(truth, time)}"


def players(truth: Truth, time: float) -> tuple[str, str]:
    """Return the kits at the near and at the far end."""
    near = 0 if truth.frames.ends[0][truth.frame_at(time)] else 1
    return truth.kits[near], truth.kits[1 - near]


def ball(truth: Truth, time: float) -> str:
    """Return the part of the picture that the ball is in."""
    x, y, visible = truth.frames.ball[truth.frame_at(time)]
    if not visible:
        return "out of sight"
    across = ("left", "middle", "right")[3 * x // truth.size[0]]
    return f"{'upper' if 2 * y < truth.size[1] else 'lower'} {across}"


def score(truth: Truth, state: BoardState) -> str:
    """Return the points as an umpire calls them, the server's first."""
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
    """Return the points, and while the ball is not in play the games too, both with the server's first.

    When a game is over it is what an umpire calls, ``game red``: a small model repeats what it has noted, and seldom
    draws the conclusion.
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
    """Return whose the game, the set or the match is that `ending` decided; nothing if it decided none."""
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
    """Return what goes on: the last stroke while the ball is in play, how a point ended and whose it is, who serves."""
    last = _last(truth, time)
    coming = next((e for e in truth.events if e.kind == "serve" and e.time > time), None)
    settled = last is None or (last.kind in ENDED and time - last.time > FRESH)
    if settled and coming is not None and coming.time - time <= READY:
        return f"{coming.player} ready {'again' if coming.detail == 'second' else 'to serve'}"
    if last is None:
        return "a pause"
    if last.kind in PLAYED:
        return f"{last.player} {last.stroke}"
    return _ended(truth, last) if time - last.time <= TOLD else "a pause"


def _ended(truth: Truth, event: Event) -> str:
    told = f"{event.player} {ENDED[event.kind]}"
    if event.kind == "fault":
        return told
    return f"{told} for {_winner(truth, event)}"


def _came_forward(truth: Truth, player: str, time: float) -> bool:
    """Return whether a player has followed a stroke to the net in the rally that goes on at `time`."""
    begun = max((e.time for e in truth.events if e.kind == "serve" and e.time <= time), default=0.0)
    rally = [e for e in truth.events if begun <= e.time and e.time + PLAIN <= time]
    over = any(e.kind in ENDED for e in rally)
    return not over and any(e.detail == "approach" and e.player == player for e in rally)


def _last(truth: Truth, time: float) -> Event | None:
    """Return the latest stroke, or the latest ending that has become plain."""
    told = [e for e in truth.events if e.kind in (*PLAYED, *ENDED)]
    seen = [e for e in told if e.time + (PLAIN if e.kind in ENDED else 0.0) <= time]
    return seen[-1] if seen else None
