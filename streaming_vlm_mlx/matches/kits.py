"""Kits: colours that a viewer tells apart at a glance and a commentator calls by one word."""

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np

Rgb = tuple[int, int, int]

# CIE76 distances: 55 rules out red against brown or orange, and yellow against orange.
PLAYERS_APART = 55.0
GROUND_APART = 42.0


@dataclass(frozen=True, slots=True)
class Kit:
    """A shirt colour and the word for it."""

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
    """Return every ordered pair of kits that stand apart from each other and from the ground they play on."""
    fit = [k for k in KITS if all(distance(k.rgb, g) >= GROUND_APART for g in grounds)]
    return [(a, b) for a, b in permutations(fit, 2) if distance(a.rgb, b.rgb) >= PLAYERS_APART]
