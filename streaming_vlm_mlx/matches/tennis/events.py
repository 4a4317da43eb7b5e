"""The events of a script, in the sidecar's form."""

from collections.abc import Iterator

from streaming_vlm_mlx.matches.tennis.court import end_name
from streaming_vlm_mlx.matches.tennis.rules import Score, call_after, point_texts
from streaming_vlm_mlx.matches.tennis.script import PointScore, Script
from streaming_vlm_mlx.matches.truth import Event
from streaming_vlm_mlx.matches.truth import Score as Shown


def events(script: Script) -> tuple[Event, ...]:
    """Return what happens within the clip, in order of time."""
    found = [Event(t, "change_of_ends") for t in script.changes]
    for played in script.points:
        found += [*_strokes(script, played), *_ending(script, played)]
    return tuple(sorted((e for e in found if 0 <= e.time < script.seconds), key=lambda e: e.time))


def score_shown(score: Score) -> Shown:
    """Return points, games and sets as a scoreboard shows them."""
    games, sets = score.games, score.sets
    return {
        "points": point_texts(score),
        "games": (str(games[0]), str(games[1])),
        "sets": (str(sets[0]), str(sets[1])),
    }


def _strokes(script: Script, played: PointScore) -> Iterator[Event]:
    score = score_shown(played.before)
    for shot in played.point.shots:
        kind = "serve" if shot.stroke == "serve" else "shot"
        yield Event(
            time=round(shot.time, 3),
            kind=kind,
            player=script.cast.names[shot.player],
            end=end_name(played.ends[shot.player]),
            stroke=shot.stroke,
            direction=shot.direction,
            detail=shot.detail,
            score=score,
        )
        if shot.detail == "first" and shot.miss:
            yield Event(
                time=round(shot.land_time, 3),
                kind="fault",
                player=script.cast.names[shot.player],
                end=end_name(played.ends[shot.player]),
                stroke=shot.stroke,
                detail=shot.miss,
                score=score,
            )


def _ending(script: Script, played: PointScore) -> Iterator[Event]:
    names, last = script.cast.names, played.point.shots[-1]
    winner = played.point.winner
    score = score_shown(played.after)
    yield Event(
        time=round(played.point.time, 3),
        kind=played.point.outcome,
        player=names[last.player],
        end=end_name(played.ends[last.player]),
        stroke=last.stroke,
        direction=last.direction,
        detail=last.miss,
        score=score,
    )
    kinds = ["point"]
    if played.before.games != played.after.games or played.before.sets != played.after.sets:
        kinds.append("game")
    if played.before.sets != played.after.sets:
        kinds.append("set")
    if played.after.winner is not None:
        kinds.append("match")
    call = call_after(played.before, played.after, names)
    for kind in kinds:
        yield Event(
            time=round(played.shown, 3),
            kind=kind,
            player=names[winner],
            end=end_name(played.ends[winner]),
            call=call,
            score=score,
        )
