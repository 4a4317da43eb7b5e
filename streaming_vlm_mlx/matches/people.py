"""People: kits with one-word names, and figures drawn in a pose."""

from dataclasses import dataclass
from functools import cache
from itertools import permutations
from math import cos, hypot, pi, sin

import numpy as np
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]

# CIE76 distances: 55 excludes red with brown or orange, and yellow with orange.
PLAYERS_APART = 55.0
GROUND_APART = 42.0


@dataclass(frozen=True, slots=True)
class Kit:
    """A shirt colour and its name."""

    name: str
    rgb: Rgb


KITS = (
    Kit("red", (205, 28, 36)),
    Kit("blue", (30, 64, 205)),
    Kit("green", (18, 140, 56)),
    Kit("yellow", (246, 214, 36)),
    Kit("white", (246, 246, 244)),
    Kit("black", (22, 22, 26)),
    Kit("orange", (250, 124, 14)),
    Kit("purple", (122, 38, 168)),
    Kit("pink", (252, 128, 190)),
    Kit("cyan", (60, 214, 224)),
    Kit("brown", (112, 66, 30)),
)


@cache
def lab(rgb: Rgb) -> tuple[float, float, float]:
    """Return CIE L*a*b* (D65) of an sRGB colour.

    Source: IEC 61966-2-1 for sRGB, CIE 15 for L*a*b*.
    """
    c = np.array(rgb) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    t = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return float(116 * f[1] - 16), float(500 * (f[0] - f[1])), float(200 * (f[1] - f[2]))


def distance(first: Rgb, second: Rgb) -> float:
    """Return the CIE76 colour difference; 2 is just noticeable, 100 is black against white."""
    return float(np.linalg.norm(np.subtract(lab(first), lab(second))))


def pairs(grounds: tuple[Rgb, ...]) -> list[tuple[Kit, Kit]]:
    """Return all ordered pairs of kits that contrast with each other and with the colours of the court."""
    fit = [k for k in KITS if all(distance(k.rgb, g) >= GROUND_APART for g in grounds)]
    return [(a, b) for a, b in permutations(fit, 2) if distance(a.rgb, b.rgb) >= PLAYERS_APART]


SKINS: tuple[Rgb, ...] = (
    (250, 214, 184),
    (232, 188, 150),
    (206, 156, 116),
    (160, 112, 76),
    (116, 78, 52),
    (82, 54, 38),
)
HAIRS: tuple[Rgb, ...] = ((28, 22, 20), (62, 42, 28), (104, 70, 40), (196, 160, 92), (150, 78, 36), (128, 126, 124))
SKIN_APART = 30.0


@dataclass(frozen=True, slots=True)
class Look:
    """Colours of a person. `cap` None: no cap; `long_hair`: a pony tail; `sleeves` None: bare arms."""

    shirt: Rgb
    shorts: Rgb
    skin: Rgb
    hair: Rgb
    cap: Rgb | None = None
    long_hair: bool = False
    sleeves: Rgb | None = None


def shaded(rgb: Rgb, by: float) -> Rgb:
    """Return `rgb` times `by`, clipped to 0 to 255."""
    r, g, b = (int(min(max(c * by, 0), 255)) for c in rgb)
    return r, g, b


def random_look(rng: np.random.Generator, shirt: Rgb, shorts: Rgb) -> Look:
    """Draw skin, hair and cap for these clothes; the skin contrasts with the shirt."""
    skins = [s for s in SKINS if distance(s, shirt) > SKIN_APART]
    skin, hair = skins[rng.integers(len(skins))], HAIRS[rng.integers(len(HAIRS))]
    cap = shirt if rng.random() < 0.4 else None
    return Look(shirt, shorts, skin, hair, cap, bool(rng.random() < 0.4))


Uv = tuple[float, float]

# Figures are larger than life, so that their movements show in a small picture.
LIFE = 1.16
FINE = 3
TALL = 1.85
SHOE: Rgb = (240, 240, 238)
FRAME: Rgb = (250, 250, 244)
FLAG: Rgb = (255, 72, 0)
FLAG_SIDE = 0.6


@dataclass(frozen=True, slots=True)
class Pose:
    """The pose of a figure 1.85 m tall, in metres: u to the right, v up from the ground.

    Attributes:
        hand: the hand that holds the racket or signals.
        off_hand: the other hand.
        racket: vector from the hand to the tip of the racket; None without a racket.
        side: the shoulder of `hand`: 1 for the right one in the picture, -1 for the left.
        lean: offset of the shoulders to the right.
        crouch: 0 upright, 1 deep.
        stride: phase of the gait, radians.
        pace: 0 standing, 1 running.
        across: share of the stride to the right, -1 to 1.
        back: seen from behind.
        flag: `hand` holds up a flag.
    """

    hand: Uv = (0.3, 0.85)
    off_hand: Uv = (-0.3, 0.85)
    racket: Uv | None = None
    side: int = 1
    lean: float = 0.0
    crouch: float = 0.0
    stride: float = 0.0
    pace: float = 0.0
    across: float = 0.0
    back: bool = False
    flag: bool = False

    @property
    def hip(self) -> Uv:
        """The lower end of the trunk."""
        return 0.3 * self.lean, 0.95 - 0.2 * self.crouch

    @property
    def neck(self) -> Uv:
        """The upper end of the trunk."""
        return self.lean, self.hip[1] + 0.56 - 0.05 * self.crouch


class _Brush:
    """Draws in metres on a patch; `foot` is the pixel of (0, 0)."""

    def __init__(self, patch: Image.Image, foot: Uv, metre: float) -> None:
        self.draw = ImageDraw.Draw(patch)
        self.foot = foot
        self.metre = metre

    def at(self, spot: Uv) -> Uv:
        return self.foot[0] + spot[0] * self.metre, self.foot[1] - spot[1] * self.metre

    def limb(self, spots: list[Uv], thick: float, colour: Rgb) -> None:
        self.draw.line([self.at(s) for s in spots], fill=colour, width=max(1, round(thick * self.metre)), joint="curve")
        for spot in (spots[0], spots[-1]):
            self.disc(spot, thick / 2, colour)

    def disc(self, spot: Uv, radius: float, colour: Rgb) -> None:
        (x, y), r = self.at(spot), radius * self.metre
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def area(self, spots: list[Uv], colour: Rgb) -> None:
        self.draw.polygon([self.at(s) for s in spots], fill=colour)

    def ring(self, middle: Uv, along: Uv, radii: Uv, colour: Rgb) -> None:
        """Draw a racket head: an ellipse around `middle`, its first radius along the unit vector `along`."""
        turns = [2 * pi * i / 14 for i in range(14)]
        spots = [
            (
                middle[0] + radii[0] * cos(t) * along[0] - radii[1] * sin(t) * along[1],
                middle[1] + radii[0] * cos(t) * along[1] + radii[1] * sin(t) * along[0],
            )
            for t in turns
        ]
        outline = [self.at(s) for s in (*spots, spots[0], spots[1])]
        self.draw.polygon(outline, fill=(*colour, 90))
        self.draw.line(outline, fill=colour, width=max(2, round(0.045 * self.metre)), joint="curve")


def draw_person(picture: Image.Image, foot: Uv, metre: float, look: Look, pose: Pose) -> None:
    """Draw a person on an RGB `picture`: feet at pixel `foot`, `metre` pixels a metre."""
    m = metre * LIFE
    left, right, top = _extent(pose)
    x0, y0 = int(foot[0] + left * m) - 1, int(foot[1] - top * m) - 1
    size = (int((right - left) * m) + 3) * FINE, (int((top + 0.15) * m) + 3) * FINE
    patch = Image.new("RGBA", size, (16, 18, 20, 0))
    brush = _Brush(patch, ((foot[0] - x0) * FINE, (foot[1] - y0) * FINE), m * FINE)
    parts = [_legs, _trunk, _head, _arms]
    for part in [_arms, _legs, _trunk, _head] if pose.back else parts:
        part(brush, look, pose)
    small = patch.reduce(FINE)
    picture.paste(small, (x0, y0), small)


def _extent(pose: Pose) -> tuple[float, float, float]:
    spots = [pose.hand, pose.off_hand, (pose.lean, TALL)]
    if pose.racket:
        spots.append((pose.hand[0] + pose.racket[0] * 1.1, pose.hand[1] + pose.racket[1] * 1.1))
    if pose.flag:
        spots.append((pose.hand[0] + FLAG_SIDE * pose.side, pose.hand[1]))
    us = [u for u, _ in spots]
    return min(-0.65, *us) - 0.2, max(0.65, *us) + 0.2, max(v for _, v in spots) + 0.2


def _legs(brush: _Brush, look: Look, pose: Pose, shoe: Rgb = SHOE) -> None:
    hip_u, hip_v = pose.hip
    for sign in (-1, 1):
        swing = sin(pose.stride + pi * (sign > 0)) * pose.pace
        lift = max(0.0, cos(pose.stride + pi * (sign > 0))) * pose.pace
        foot = (sign * (0.17 + 0.16 * pose.crouch) + 0.42 * swing * pose.across, 0.06 + 0.24 * lift)
        top = (hip_u + sign * 0.1, hip_v)
        knee = ((top[0] + foot[0]) / 2 + sign * 0.05 * (1 + pose.crouch), (top[1] + foot[1]) / 2 + 0.06 * lift)
        brush.limb([top, knee, foot], 0.15, look.skin)
        brush.limb([foot, (foot[0] + 0.06 * sign, foot[1] - 0.03)], 0.13, shoe)
        middle = ((top[0] + knee[0]) / 2, (top[1] + knee[1]) / 2)
        brush.limb([top, middle], 0.23, look.shorts)


def _trunk(brush: _Brush, look: Look, pose: Pose) -> None:
    (hip_u, hip_v), (neck_u, neck_v) = pose.hip, pose.neck
    brush.area(
        [(hip_u - 0.18, hip_v), (neck_u - 0.25, neck_v - 0.04), (neck_u + 0.25, neck_v - 0.04), (hip_u + 0.18, hip_v)],
        look.shirt,
    )
    brush.limb([(neck_u - 0.18, neck_v - 0.07), (neck_u + 0.18, neck_v - 0.07)], 0.16, look.shirt)
    brush.limb([(hip_u - 0.12, hip_v - 0.02), (hip_u + 0.12, hip_v - 0.02)], 0.14, look.shorts)


def _head(brush: _Brush, look: Look, pose: Pose) -> None:
    u, v = pose.neck[0] * 1.1, pose.neck[1] + 0.18
    if look.long_hair:
        brush.limb([(u, v), (u - 0.06 * pose.side, v - 0.3)], 0.12, look.hair)
    brush.disc((u, v), 0.145, look.hair)
    if not pose.back:
        brush.disc((u, v - 0.03), 0.125, look.skin)
    if look.cap:
        brush.area([(u - 0.16, v + 0.03), (u - 0.1, v + 0.15), (u + 0.1, v + 0.15), (u + 0.16, v + 0.03)], look.cap)


def _arms(brush: _Brush, look: Look, pose: Pose) -> None:
    u, v = pose.neck
    if pose.racket and pose.back:
        _racket(brush, pose)
    for hand, sign in ((pose.off_hand, -pose.side), (pose.hand, pose.side)):
        shoulder = (u + 0.21 * sign, v - 0.08)
        elbow = ((shoulder[0] + hand[0]) / 2 + 0.07 * sign, (shoulder[1] + hand[1]) / 2 - 0.08)
        brush.limb([shoulder, elbow, hand], 0.11 if look.sleeves is None else 0.15, look.sleeves or look.skin)
        sleeve = ((shoulder[0] + elbow[0]) / 2, (shoulder[1] + elbow[1]) / 2)
        brush.limb([shoulder, sleeve], 0.15, shaded(look.shirt, 0.92))
    if pose.racket and not pose.back:
        _racket(brush, pose)
    if pose.flag:
        _flag(brush, pose)


def _flag(brush: _Brush, pose: Pose) -> None:
    (u, v), reach = pose.hand, FLAG_SIDE * pose.side
    brush.limb([pose.hand, (u + reach, v)], 0.06, FRAME)
    brush.area([(u, v), (u + reach, v), (u + reach, v - FLAG_SIDE), (u, v - FLAG_SIDE)], FLAG)


def _racket(brush: _Brush, pose: Pose) -> None:
    if pose.racket is None:
        return
    length = hypot(*pose.racket)
    along = (pose.racket[0] / length, pose.racket[1] / length)
    throat = (pose.hand[0] + 0.34 * along[0], pose.hand[1] + 0.34 * along[1])
    middle = (pose.hand[0] + 0.52 * along[0], pose.hand[1] + 0.52 * along[1])
    brush.limb([pose.hand, throat], 0.05, FRAME)
    brush.ring(middle, along, (0.2, 0.15), FRAME)
