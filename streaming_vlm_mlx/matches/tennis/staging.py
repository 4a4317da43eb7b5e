"""What is where in the picture at any moment: camera moves, ball, boxes. Pixels, but nothing is drawn yet."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.matches.camera import HEIGHT, WIDTH, Camera, Floats, View, followed, framed
from streaming_vlm_mlx.matches.figures import LIFE, TALL
from streaming_vlm_mlx.matches.flight import Vec, position
from streaming_vlm_mlx.matches.tennis.court import HALF_LENGTH
from streaming_vlm_mlx.matches.tennis.script import Script
from streaming_vlm_mlx.matches.truth import Box, Frames

# Pixels: how small a ball may get.
BALL_METRES, BALL_LEAST = 0.085, 2.7
PAN_X, PAN_Y = 44.0, 12.0
VIEW_STEPS = (0.125, 0.125, 0.0005)


def random_camera(rng: np.random.Generator) -> Camera:
    """Draw a place behind the near baseline from which both players are large enough."""
    return framed(
        height=rng.uniform(8.0, 10.4),
        back=HALF_LENGTH + rng.uniform(21.5, 26.0),
        depths=(-HALF_LENGTH, HALF_LENGTH),
        rows=(rng.uniform(298, 308), rng.uniform(110, 122)),
    )


@dataclass(frozen=True)
class Staging:
    """A script before a camera.

    Attributes:
        script: all that happens.
        camera: where from.
        fps: frames a second.
        times: each frame's.
        ball: metres [frames, 3], nan where there is none.
        views: each frame's pan and zoom.
    """

    script: Script
    camera: Camera
    fps: int
    times: npt.NDArray[np.float64]
    ball: Floats
    views: tuple[View, ...]

    def spot(self, frame: int, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return pixels right and down, and pixels a metre, of a world point in `frame`."""
        x, y, scale = self.views[frame].apply(self.camera.project(point))
        return float(x), float(y), float(scale)

    def frames(self) -> Frames:
        """Return what is where, in the form of the sidecar."""
        shown = [self._ball(i) for i in range(len(self.times))]
        return Frames(
            times=tuple(round(float(t), 3) for t in self.times),
            ball=tuple(shown),
            players=(self._boxes(0), self._boxes(1)),
            ends=(self._ends(0), self._ends(1)),
            signal=tuple(int(any(s.holds(t) for s in self.script.signals)) for t in self.times),
            clock=tuple(self._clock(float(t)) for t in self.times),
        )

    def _clock(self, time: float) -> int:
        return next((r.serve for r in self.script.clock if r.start <= time < r.end), 0)

    def _ball(self, frame: int) -> tuple[int, int, int]:
        if np.isnan(self.ball[frame, 0]):
            return 0, 0, 0
        bx, by, bz = (float(v) for v in self.ball[frame])
        x, y = (round(v) for v in self.spot(frame, (bx, by, bz))[:2])
        if not (0 <= x < WIDTH and 0 <= y < HEIGHT):
            return 0, 0, 0
        hidden = any(self._hides(track.at(self.times[frame]), (bx, by, bz)) for track in self.script.players)
        return x, y, int(not hidden)

    def _hides(self, place: tuple[float, float], ball: Vec) -> bool:
        """Whether a player at `place` stands before the ball."""
        if ball[1] < place[1] + 0.05:
            return False
        x, y, _ = self.camera.project(ball)
        u, v, metre = self.camera.project((*place, 0.0))
        return bool(abs(x - u) < 0.25 * LIFE * metre and 0 < v - y < 1.75 * LIFE * metre)

    def _boxes(self, player: int) -> tuple[Box, ...]:
        return tuple(self._box(i, player) for i in range(len(self.times)))

    def _box(self, frame: int, player: int) -> Box:
        x, y, metre = self.spot(frame, (*self.script.players[player].at(self.times[frame]), 0.0))
        wide, tall = 0.48 * LIFE * metre, TALL * LIFE * metre
        box = (max(0, round(x - wide)), max(0, round(y - tall)), min(WIDTH, round(x + wide)), min(HEIGHT, round(y)))
        return box if box[0] < box[2] and box[1] < box[3] else (0, 0, 0, 0)

    def _ends(self, player: int) -> tuple[int, ...]:
        return tuple(int(self.script.players[player].at(t)[1] < 0) for t in self.times)


def staged(script: Script, camera: Camera, fps: int, rng: np.random.Generator) -> Staging:
    """Return `script` before `camera`, with pans and zooms that `rng` sets the strength of."""
    times = np.arange(round(script.seconds * fps)) / fps
    starts = [arc.start for arc in script.ball]
    places = [position(script.ball, starts, float(t)) for t in times]
    ball = np.array([p if p else (np.nan,) * 3 for p in places], dtype=np.float64)
    return Staging(script, camera, fps, times, ball, _views(script, camera, fps, ball, rng))


def _views(script: Script, camera: Camera, fps: int, ball: Floats, rng: np.random.Generator) -> tuple[View, ...]:
    follow, near, far = rng.uniform(0.04, 0.2), rng.uniform(1.0, 1.03), rng.uniform(0.0, 0.05)
    spots = camera.project(np.nan_to_num(ball))
    off = np.where(np.isnan(ball[:, :1]), 0.0, spots[:, :2] - (WIDTH / 2, HEIGHT / 2))
    pans = np.clip(off * (follow, 0.3 * follow), (-PAN_X, -PAN_Y), (PAN_X, PAN_Y))
    wanted = np.concatenate([pans, np.full((len(ball), 1), near)], axis=1)
    for p in script.points:
        start, end = (round(t * fps) for t in (p.point.shots[0].time, p.point.time))
        wanted[max(start, 0) : max(end, 0), 2] += far
    smooth = followed(wanted, fps, 0.7)
    # Steps too small to be seen; a camera at rest then shows the same picture, which is painted once.
    stepped = np.rint(smooth / VIEW_STEPS) * VIEW_STEPS
    return tuple(View(WIDTH / 2 + x, HEIGHT / 2 + y, zoom) for x, y, zoom in stepped.tolist())
