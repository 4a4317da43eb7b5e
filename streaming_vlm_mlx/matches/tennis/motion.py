"""One player from moment to moment: place, gait and pose."""

from bisect import bisect_left
from dataclasses import replace
from math import hypot, sin

import numpy as np

from streaming_vlm_mlx.matches.figures import Pose
from streaming_vlm_mlx.matches.flight import position
from streaming_vlm_mlx.matches.tennis import poses
from streaming_vlm_mlx.matches.tennis.point import PREPARE
from streaming_vlm_mlx.matches.tennis.script import Script, Span

STEP = 0.04
STRIDE = 2.3  # radians of gait a metre
RUNNING = 4.2


class Motion:
    """A player's body through a script."""

    def __init__(self, script: Script, player: int) -> None:
        self.track = script.players[player]
        self.left_handed = script.cast.skills[player].left_handed
        self.strokes = [poses.contact(s, self.track.at(s.time)) for s in script.shots if s.player == player]
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
        """Return the body at `time`."""
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
                return poses.lunging(lunge.who, hand)
        if _during(self.cheers, time):
            return poses.standing(poses.CHEER, hand, lift=0.07 * sin(14 * time))
        if _during(self.dismays, time):
            return poses.standing(poses.DISMAY, hand, crouch=0.15)
        if _during(self.bouncing, time):
            return poses.standing(poses.BOUNCING, hand, crouch=0.2, lift=0.06 * sin(11.4 * time))
        if _during(self.alert, time):
            return poses.standing(poses.READY, hand, crouch=0.45)
        return poses.standing(poses.RELAXED, hand)

    def _stroke(self, time: float, hand: int) -> Pose | None:
        i = bisect_left(self.strokes, time, key=lambda s: s.shot.time)
        for stroke in self.strokes[max(0, i - 1) : i + 1][::-1]:
            pose = poses.striking(stroke, time, hand)
            if pose:
                return pose
        return None


def _during(spans: list[Span], time: float) -> bool:
    return any(s.holds(time) for s in spans)


def _lunges(script: Script, player: int) -> list[Span]:
    """Return when the player stretches for a ball in vain; `who` is the side of the picture."""
    starts = [a.start for a in script.ball]
    spans = []
    for p in script.points:
        last = p.point.shots[-1]
        if last.result == "winner" and last.player != player:
            ball = position(script.ball, starts, last.land_time + 0.35) or last.landing
            side = 1 if ball[0] > script.players[player].at(last.land_time + 0.35)[0] else -1
            spans.append(Span(last.land_time + 0.05, last.land_time + 0.8, side))
    return spans
