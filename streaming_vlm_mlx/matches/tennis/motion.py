"""The poses of a player: ready, running, striking, cheering or dismayed.

Strokes are tables of keyframes: seconds from contact, then hand, racket and other hand. u points to the side of the
ball. The keyframe at 0 is adjusted so that the racket meets the ball.
"""

from bisect import bisect_left
from dataclasses import dataclass, replace
from math import hypot, sin

import numpy as np

from streaming_vlm_mlx.matches.flight import position
from streaming_vlm_mlx.matches.people import LIFE, Pose
from streaming_vlm_mlx.matches.tennis.point import PREPARE, Shot
from streaming_vlm_mlx.matches.tennis.script import Script, Span

Key = tuple[float, float, float, float, float, float, float]  # seconds, hand u v, racket u v, off hand u v

READY: Key = (0.0, 0.16, 1.0, 0.14, 0.5, -0.06, 1.02)
FOREHAND: tuple[Key, ...] = (
    (-0.75, *READY[1:]),
    (-0.4, 0.6, 1.15, 0.38, 0.44, 0.2, 1.2),
    (-0.15, 0.62, 0.8, 0.5, -0.28, 0.1, 1.15),
    (0.0, 0.42, 1.0, 0.58, 0.06, -0.2, 1.1),
    (0.18, -0.05, 1.35, -0.2, 0.55, -0.3, 1.2),
    (0.4, -0.25, 1.4, -0.5, 0.1, -0.3, 1.1),
    (0.75, *READY[1:]),
)
BACKHAND: tuple[Key, ...] = (
    (-0.75, *READY[1:]),
    (-0.4, 0.5, 1.15, 0.36, 0.46, 0.42, 1.2),
    (-0.15, 0.5, 0.85, 0.5, -0.25, 0.42, 0.9),
    (0.0, 0.4, 1.0, 0.58, 0.04, 0.3, 1.04),
    (0.2, -0.02, 1.4, -0.25, 0.52, 0.02, 1.42),
    (0.4, -0.2, 1.45, -0.48, 0.2, -0.12, 1.45),
    (0.75, *READY[1:]),
)
VOLLEY: tuple[Key, ...] = (
    (-0.5, *READY[1:]),
    (-0.2, 0.42, 1.3, 0.3, 0.5, 0.0, 1.1),
    (0.0, 0.45, 1.1, 0.5, 0.3, 0.0, 1.0),
    (0.2, 0.25, 0.95, 0.55, 0.1, -0.1, 1.0),
    (0.55, *READY[1:]),
)
SERVE: tuple[Key, ...] = (
    (-1.1, 0.25, 0.95, 0.1, 0.5, -0.1, 0.95),
    (-0.75, 0.3, 1.0, 0.3, 0.4, -0.08, 1.3),
    (-0.45, 0.45, 1.3, 0.2, 0.55, -0.14, 2.0),
    (-0.15, 0.32, 1.6, 0.1, -0.5, -0.2, 1.75),
    (0.0, 0.2, 1.85, 0.08, 0.58, -0.25, 1.2),
    (0.16, -0.1, 1.2, -0.25, -0.5, -0.3, 1.05),
    (0.4, -0.3, 0.85, -0.4, -0.4, -0.3, 1.0),
    (0.8, *READY[1:]),
)
KEYS = {"serve": SERVE, "smash": SERVE, "volley": VOLLEY, "forehand": FOREHAND, "backhand": BACKHAND}
CHEER: Key = (0.0, 0.3, 2.0, 0.1, 0.56, -0.3, 1.55)
DISMAY: Key = (0.0, 0.78, 1.3, 0.6, 0.06, -0.82, 1.3)
RELAXED: Key = (0.0, 0.3, 0.86, 0.16, -0.5, -0.3, 0.86)
BOUNCING: Key = (0.0, 0.3, 1.0, 0.24, 0.5, 0.44, 0.85)


@dataclass(frozen=True, slots=True)
class Contact:
    """A stroke relative to the body: where the ball is met, in metres of the figure, and on which side."""

    shot: Shot
    side: int
    ball: tuple[float, float]


def contact(shot: Shot, place: tuple[float, float]) -> Contact:
    """Return the contact of a player who strikes at `place`."""
    du = shot.hit[0] - place[0]
    return Contact(shot, 1 if du >= 0 else -1, (abs(du) / LIFE, shot.hit[2] / LIFE))


def striking(stroke: Contact, time: float, hand: int) -> Pose | None:
    """Return the pose of a stroke at `time`; None before and after the stroke.

    Args:
        stroke: the stroke.
        time: seconds.
        hand: the shoulder of the racket arm, 1 for the right one in the picture.
    """
    kind = stroke.shot.stroke if stroke.shot.stroke in ("serve", "smash", "volley") else stroke.shot.wing
    keys, t = KEYS[kind], time - stroke.shot.time
    if not keys[0][0] <= t <= keys[-1][0]:
        return None
    table = np.array(keys)
    met = int(np.argmin(np.abs(table[:, 0])))
    table[met, 1:3] = np.array(stroke.ball) - table[met, 3:5] * 0.85
    values = [float(np.interp(t, table[:, 0], table[:, i])) for i in range(1, 7)]
    low = max(0.0, 0.9 - stroke.ball[1]) if abs(t) < 0.4 else 0.0
    lean = stroke.side * (0.1 if kind in ("forehand", "backhand", "volley") else 0.02)
    return replace(_posed(values, stroke.side, hand), lean=lean, crouch=min(1.0, 0.25 + low))


def standing(key: Key, hand: int, crouch: float = 0.0, lift: float = 0.0) -> Pose:
    """Return the pose of one keyframe on the side of `hand`, with the hand raised by `lift` metres."""
    values = list(key[1:])
    values[1] += lift
    return replace(_posed(values, hand, hand), crouch=crouch)


def lunging(side: int, hand: int) -> Pose:
    """Return the pose of a player who stretches to `side` for a ball out of reach."""
    return Pose((0.75 * side, 0.85), (-0.35 * side, 1.0), (0.55 * side, -0.1), hand, lean=0.25 * side, crouch=0.7)


def _posed(values: list[float], side: int, hand: int) -> Pose:
    u, v, ru, rv, ou, ov = values
    return Pose((side * u, v), (side * ou, ov), (side * ru, rv), hand)


STEP = 0.04
STRIDE = 2.3  # radians of gait a metre
RUNNING = 4.2


class Motion:
    """The poses of one player during a script."""

    def __init__(self, script: Script, player: int) -> None:
        self.track = script.players[player]
        self.left_handed = script.cast.skills[player].left_handed
        self.strokes = [contact(s, self.track.at(s.time)) for s in script.shots if s.player == player]
        self.lunges = _lunges(script, player)
        self.cheers = [s for s in script.cheers if s.who == player]
        self.dismays = [s for s in script.dismays if s.who == player]
        self.alert = [Span(p.point.shots[0].time - 1.6, p.point.time + 0.3, 0) for p in script.points]
        serves = [s.time for s in script.shots if s.stroke == "serve" and s.player == player]
        self.bouncing = [Span(t - PREPARE, t - 1.1, 0) for t in serves]
        self._times = np.arange(0.0, script.seconds + 2 * STEP, STEP)
        steps = np.diff(self.track.sample(self._times), axis=0)
        self._way = np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])

    def pose(self, time: float) -> Pose:
        """Return the pose at `time`."""
        (x0, y0), (x1, y1) = self.track.at(time - STEP), self.track.at(time + STEP)
        vx, vy = (x1 - x0) / (2 * STEP), (y1 - y0) / (2 * STEP)
        speed = hypot(vx, vy)
        near = y1 < 0
        hand = 1 if near != self.left_handed else -1
        pose = self._body(time, hand)
        return replace(
            pose,
            lean=pose.lean + 0.025 * vx,
            stride=STRIDE * float(np.interp(time, self._times, self._way)),
            pace=min(1.0, speed / RUNNING),
            across=vx / speed if speed > 0.1 else 0.0,
            back=near,
        )

    def _body(self, time: float, hand: int) -> Pose:
        stroke = self._stroke(time, hand)
        if stroke:
            return stroke
        for lunge in self.lunges:
            if lunge.holds(time):
                return lunging(lunge.who, hand)
        if _during(self.cheers, time):
            return standing(CHEER, hand, lift=0.07 * sin(14 * time))
        if _during(self.dismays, time):
            return standing(DISMAY, hand, crouch=0.15)
        if _during(self.bouncing, time):
            return standing(BOUNCING, hand, crouch=0.2, lift=0.06 * sin(11.4 * time))
        if _during(self.alert, time):
            return standing(READY, hand, crouch=0.45)
        return standing(RELAXED, hand)

    def _stroke(self, time: float, hand: int) -> Pose | None:
        i = bisect_left(self.strokes, time, key=lambda s: s.shot.time)
        for stroke in self.strokes[max(0, i - 1) : i + 1][::-1]:
            pose = striking(stroke, time, hand)
            if pose:
                return pose
        return None


def _during(spans: list[Span], time: float) -> bool:
    return any(s.holds(time) for s in spans)


def _lunges(script: Script, player: int) -> list[Span]:
    """Return when the player stretches for a ball out of reach; `who` is the side of the picture."""
    starts = [a.start for a in script.ball]
    spans = []
    for p in script.points:
        last = p.point.shots[-1]
        if last.result == "winner" and last.player != player:
            ball = position(script.ball, starts, last.land_time + 0.35) or last.landing
            side = 1 if ball[0] > script.players[player].at(last.land_time + 0.35)[0] else -1
            spans.append(Span(last.land_time + 0.05, last.land_time + 0.8, side))
    return spans
