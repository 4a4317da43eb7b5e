"""Draw the frames of a match: camera moves, officials and ball kids, players, net, ball and scoreboard."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import hypot

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from streaming_vlm_mlx.matches.camera import HEIGHT, WIDTH, Camera, Floats, Grade, Grain, Pixels, View, followed, framed
from streaming_vlm_mlx.matches.flight import Place, Vec, position
from streaming_vlm_mlx.matches.match_truth import BoardState, Box, Frames
from streaming_vlm_mlx.matches.people import LIFE, TALL, Look, Pose, draw_person, random_look
from streaming_vlm_mlx.matches.tennis.arena import CROWDS, DENSE, MARGIN_X, MARGIN_Y, on_plate
from streaming_vlm_mlx.matches.tennis.court import HALF_LENGTH, NET_CENTRE, NET_POST, POST_X
from streaming_vlm_mlx.matches.tennis.motion import Motion
from streaming_vlm_mlx.matches.tennis.scoreboard import Bug
from streaming_vlm_mlx.matches.tennis.script import JUDGES, KIDS, Script

# Radius of the ball in metres, and its least radius in pixels.
BALL_METRES, BALL_LEAST = 0.085, 2.7
PAN_X, PAN_Y = 44.0, 12.0
VIEW_STEPS = (0.125, 0.125, 0.0005)


def random_camera(rng: np.random.Generator) -> Camera:
    """Draw a camera behind the near baseline that shows both players large enough."""
    return framed(
        height=rng.uniform(8.0, 10.4),
        back=HALF_LENGTH + rng.uniform(21.5, 26.0),
        depths=(-HALF_LENGTH, HALF_LENGTH),
        rows=(rng.uniform(298, 308), rng.uniform(110, 122)),
    )


@dataclass(frozen=True)
class Staging:
    """A script in front of a camera.

    Attributes:
        script: everything that happens.
        camera: the camera.
        fps: frames a second.
        times: seconds of each frame.
        ball: metres [frames, 3], nan without a ball.
        views: pan and zoom of each frame.
    """

    script: Script
    camera: Camera
    fps: int
    times: npt.NDArray[np.float64]
    ball: Floats
    views: tuple[View, ...]

    def spot(self, frame: int, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the pixel (right, down) of a world point in `frame`, and the pixels a metre there."""
        x, y, scale = self.views[frame].apply(self.camera.project(point))
        return float(x), float(y), float(scale)

    def frames(self) -> Frames:
        """Return what each frame shows, in the form of the sidecar."""
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
        """Whether a player at `place` hides the ball."""
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
    """Return `script` in front of `camera`; `rng` draws the strength of pans and zooms."""
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
    # Invisibly small steps: a camera at rest repeats the same view, which is painted once.
    stepped = np.rint(smooth / VIEW_STEPS) * VIEW_STEPS
    return tuple(View(WIDTH / 2 + x, HEIGHT / 2 + y, zoom) for x, y, zoom in stepped.tolist())


WATCHING = Pose((0.16, 0.72), (-0.16, 0.72), lean=0.0, crouch=0.55)
KNEELING = Pose((0.2, 0.55), (-0.2, 0.55), crouch=1.0)

# Shirt, trousers, and sleeves that make a stretched arm visible.
UNIFORMS = (
    ((44, 48, 66), (196, 186, 160), (236, 236, 232)),
    ((150, 156, 164), (58, 62, 74), (240, 240, 240)),
    ((84, 82, 78), (206, 198, 178), (236, 232, 220)),
)
# Ball kids are smaller than players.
CHILD = 0.8

Active = tuple[frozenset[int], frozenset[int]]


@dataclass(frozen=True, slots=True)
class Acting:
    """A person to draw: place, clothes, pose, and size relative to an adult."""

    place: Place
    look: Look
    pose: Pose
    size: float = 1.0


class Extras:
    """The officials and ball kids of a match. Those who do not move are painted on the plates."""

    def __init__(self, script: Script, camera: Camera, plates: list[Image.Image], rng: np.random.Generator) -> None:
        self.script = script
        self.camera = camera
        self.plates = plates
        shirt, trousers, sleeves = UNIFORMS[rng.integers(len(UNIFORMS))]
        self.judges = [replace(random_look(rng, shirt, trousers), sleeves=sleeves) for _ in JUDGES]
        self.kids = [random_look(rng, (150, 156, 164), (60, 64, 74)) for _ in KIDS]
        self._cache: tuple[tuple[int, Active], Image.Image] | None = None

    def acting(self, time: float) -> tuple[Active, list[Acting]]:
        """Return who moves at `time`: indices of judges and kids, and figures to draw."""
        judges = frozenset(s.who for s in self.script.signals if s.holds(time))
        moving = {i: track.at(time) for i, track in enumerate(self.script.kids)}
        kids = frozenset(i for i, place in moving.items() if place != KIDS[i])
        figures = [Acting(JUDGES[j], self.judges[j], _signal(JUDGES[j])) for j in sorted(judges)]
        figures += [Acting(moving[k], self.kids[k], self._run(k, time), CHILD) for k in sorted(kids)]
        return (judges, kids), figures

    def plate(self, crowd: int, active: Active) -> Image.Image:
        """Return plate number `crowd` with everybody on it who is not `active`."""
        key = (crowd % CROWDS, active)
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self._composed(*key))
        return self._cache[1]

    def _composed(self, crowd: int, active: Active) -> Image.Image:
        plate = self.plates[crowd].copy()
        judges, kids = active
        still = [Acting(JUDGES[j], self.judges[j], WATCHING) for j in range(len(JUDGES)) if j not in judges]
        still += [Acting(KIDS[k], self.kids[k], KNEELING, CHILD) for k in range(len(KIDS)) if k not in kids]
        for one in sorted(still, key=lambda s: -s.place[1]):
            x, y, metre = on_plate(self.camera.project((*one.place, 0.0)))
            draw_person(plate, (float(x), float(y)), float(metre) * one.size, one.look, one.pose)
        return plate

    def _run(self, kid: int, time: float) -> Pose:
        track = self.script.kids[kid]
        (x0, y0), (x1, y1) = track.at(time - 0.04), track.at(time + 0.04)
        speed = hypot(x1 - x0, y1 - y0)
        across = (x1 - x0) / speed if speed else 0.0
        return Pose((0.3, 0.95), (-0.3, 0.95), crouch=0.3, stride=14 * time, pace=1.0, across=across)


def _signal(place: Place) -> Pose:
    """Return the pose for a ball that is out: an arm with a flag, stretched away from the court."""
    out = 1 if place[0] > 0 else -1
    return Pose((0.8 * out, 1.3), (-0.26 * out, 0.8), side=out, flag=True)


BALL, BALL_RIM, TRAIL = (230, 252, 64), (60, 80, 10), (240, 252, 130)
TRAIL_SECONDS, TRAIL_STEPS = 0.2, 8
FINE = 3
STIR = 5  # changes of the crowd per second of applause
SHADE = (0, 0, 0, 84)

Spot = tuple[float, float]


class Painter:
    """Draws the frames of a match, in any order."""

    def __init__(
        self, staging: Staging, extras: Extras, bug: Bug, states: tuple[BoardState, ...], grade: Grade
    ) -> None:
        self.staging = staging
        self.extras = extras
        self.motions = (Motion(staging.script, 0), Motion(staging.script, 1))
        self.states = states
        self._bugs = [bug.image(s) for s in states]
        self._bug = bug
        self._table = grade.table()
        self._seen: tuple[Image.Image, View, Image.Image] | None = None
        self._starts = [a.start for a in staging.script.ball]

    def draw(self, frame: int) -> Image.Image:
        """Return frame number `frame`, graded, without grain."""
        time = float(self.staging.times[frame])
        active, acting = self.extras.acting(time)
        stirred = any(s.holds(time) for s in self.staging.script.applause)
        picture = self._still(self.extras.plate(int(time * STIR) if stirred else 0, active), self.staging.views[frame])
        for motion, look in zip(self.motions, self.staging.script.cast.looks, strict=True):
            acting.append(Acting(motion.track.at(time), look, motion.pose(time)))
        pen = ImageDraw.Draw(picture, "RGBA")
        layers: list[tuple[float, Callable[[], None]]] = [(0.0, lambda: self._net(pen, frame))]
        for one in acting:
            x, y, metre = self.staging.spot(frame, (*one.place, 0.0))
            _shade(pen, (x, y), 0.42 * LIFE * metre * one.size)
            layers.append((one.place[1], partial(draw_person, picture, (x, y), metre * one.size, one.look, one.pose)))
        if not np.isnan(self.staging.ball[frame, 0]):
            bx, by, bz = (float(v) for v in self.staging.ball[frame])
            x, y, metre = self.staging.spot(frame, (bx, by, 0.0))
            _shade(pen, (x, y), max(BALL_LEAST, BALL_METRES * metre))
            layers.append((by, lambda: self._ball(picture, frame, (bx, by, bz))))
        for _, layer in sorted(layers, key=lambda pair: -pair[0]):
            layer()
        picture.paste(self._bugs[self._state(time)], self._bug.corner)
        for reading in self.staging.script.clock:
            if reading.start <= time < reading.end:
                picture.paste(self._bug.clock(reading), self._bug.clock_corner)
        return picture.point(self._table)

    def _still(self, plate: Image.Image, view: View) -> Image.Image:
        """Return what `view` shows of `plate`; the result is kept, because the next frame often has the same view."""
        if self._seen is None or self._seen[0] is not plate or self._seen[1] != view:
            self._seen = (plate, view, _seen(plate, view))
        return self._seen[2].copy()

    def _state(self, time: float) -> int:
        return max(i for i, s in enumerate(self.states) if i == 0 or s.time <= time)

    def _net(self, pen: ImageDraw.ImageDraw, frame: int) -> None:
        spots = [self.staging.spot(frame, (x, 0.0, z))[:2] for x, z in NET]
        left, middle, right, right_foot, left_foot = spots
        pen.polygon([left, middle, right, right_foot, left_foot], fill=(8, 10, 12, 96))
        for a, b in ((left, left_foot), (right, right_foot)):
            pen.line([a, b], fill=(40, 44, 48, 255), width=4)
        pen.line([left, middle, right], fill=(244, 244, 244, 255), width=3)
        foot = self.staging.spot(frame, (0.0, 0.0, 0.0))[:2]
        pen.line([middle, foot], fill=(236, 236, 236, 255), width=2)

    def _ball(self, picture: Image.Image, frame: int, ball: Vec) -> None:
        """Draw the ball and its trail."""
        time = float(self.staging.times[frame])
        trail = []
        for i in range(TRAIL_STEPS + 1):
            place = position(self.staging.script.ball, self._starts, time - TRAIL_SECONDS * i / TRAIL_STEPS)
            if place is None:
                break
            trail.append(self.staging.spot(frame, place))
        x, y, metre = self.staging.spot(frame, ball)
        radius = max(BALL_LEAST, BALL_METRES * metre)
        _draw_ball(picture, [(u, v) for u, v, _ in trail] or [(x, y)], radius)


NET = ((-POST_X, NET_POST), (0.0, NET_CENTRE), (POST_X, NET_POST), (POST_X, 0.0), (-POST_X, 0.0))


def _seen(plate: Image.Image, view: View) -> Image.Image:
    """Return the part of a plate that `view` shows."""
    wide, high = WIDTH / view.zoom, HEIGHT / view.zoom
    left, top = view.x - wide / 2 + MARGIN_X, view.y - high / 2 + MARGIN_Y
    box = (left * DENSE, top * DENSE, (left + wide) * DENSE, (top + high) * DENSE)
    return plate.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box)


def _shade(pen: ImageDraw.ImageDraw, foot: Spot, radius: float) -> None:
    x, y = foot
    pen.ellipse((x - radius, y - 0.36 * radius, x + radius, y + 0.36 * radius), fill=SHADE)


def _draw_ball(picture: Image.Image, trail: list[Spot], radius: float) -> None:
    """Draw a ball at the first spot of `trail`, and a trail that fades along the rest."""
    us, vs = [u for u, _ in trail], [v for _, v in trail]
    edge = radius + 2
    x0, y0 = int(min(us) - edge), int(min(vs) - edge)
    size = (int(max(us) + edge) - x0 + 1, int(max(vs) + edge) - y0 + 1)
    patch = Image.new("RGBA", (size[0] * FINE, size[1] * FINE), (*TRAIL, 0))
    pen = ImageDraw.Draw(patch)
    fine = [((u - x0) * FINE, (v - y0) * FINE) for u, v in trail]
    for i in range(len(fine) - 1, 0, -1):
        fade = 1 - i / len(fine)
        if hypot(fine[i][0] - fine[i - 1][0], fine[i][1] - fine[i - 1][1]) > 0.5:
            width = max(2, round(1.7 * radius * FINE * (0.35 + 0.65 * fade)))
            pen.line([fine[i], fine[i - 1]], fill=(*TRAIL, int(190 * fade)), width=width)
    (x, y), r = fine[0], radius * FINE
    pen.ellipse((x - r - 1, y - r - 1, x + r + 1, y + r + 1), fill=(*BALL_RIM, 255))
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(*BALL, 255))
    small = patch.reduce(FINE)
    picture.paste(small, (x0, y0), small)


def grained(picture: Image.Image, grain: Grain, frame: int) -> Pixels:
    """Return `picture` as uint8 [height, width, 3] with the grain of `frame`."""
    return grain.over(np.asarray(picture), frame)
