"""Officials and ball kids: part of the painted plate while they keep still, figures of their own when they act."""

from dataclasses import dataclass, replace
from math import hypot

import numpy as np
from PIL import Image

from streaming_vlm_mlx.matches.camera import Camera
from streaming_vlm_mlx.matches.figures import Pose, draw_person
from streaming_vlm_mlx.matches.people import Look, random_look
from streaming_vlm_mlx.matches.tennis.arena import CROWDS, on_plate
from streaming_vlm_mlx.matches.tennis.script import JUDGES, KIDS, Script
from streaming_vlm_mlx.matches.tracks import Place

WATCHING = Pose((0.16, 0.72), (-0.16, 0.72), lean=0.0, crouch=0.55)
KNEELING = Pose((0.2, 0.55), (-0.2, 0.55), crouch=1.0)

# Shirt, trousers, and sleeves that make a stretched arm plain to see.
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
    """One who is to be drawn: where, in what clothes, how, and how large against a grown person."""

    place: Place
    look: Look
    pose: Pose
    size: float = 1.0


class Extras:
    """The officials and ball kids of a match, and the plates that hold those who keep still."""

    def __init__(self, script: Script, camera: Camera, plates: list[Image.Image], rng: np.random.Generator) -> None:
        self.script = script
        self.camera = camera
        self.plates = plates
        shirt, trousers, sleeves = UNIFORMS[rng.integers(len(UNIFORMS))]
        self.judges = [replace(random_look(rng, shirt, trousers), sleeves=sleeves) for _ in JUDGES]
        self.kids = [random_look(rng, (150, 156, 164), (60, 64, 74)) for _ in KIDS]
        self._cache: tuple[tuple[int, Active], Image.Image] | None = None

    def acting(self, time: float) -> tuple[Active, list[Acting]]:
        """Return who acts at `time`, as indices of judges and kids, and as figures."""
        judges = frozenset(s.who for s in self.script.signals if s.holds(time))
        moving = {i: track.at(time) for i, track in enumerate(self.script.kids)}
        kids = frozenset(i for i, place in moving.items() if place != KIDS[i])
        figures = [Acting(JUDGES[j], self.judges[j], _signal(JUDGES[j])) for j in sorted(judges)]
        figures += [Acting(moving[k], self.kids[k], self._run(k, time), CHILD) for k in sorted(kids)]
        return (judges, kids), figures

    def plate(self, crowd: int, active: Active) -> Image.Image:
        """Return the plate with all but the `active` ones on it, the crowd as in number `crowd`."""
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
    """Return an arm stretched away from the court, with a flag in its hand: the ball was out."""
    out = 1 if place[0] > 0 else -1
    return Pose((0.8 * out, 1.3), (-0.26 * out, 0.8), side=out, flag=True)
