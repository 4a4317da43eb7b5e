"""The tennis court in metres, and the colours of surfaces.

x points right, y away from the camera, z up; the origin is under the middle of the net. Source: ITF Rules of Tennis,
rule 1 and appendix VIII.
"""

from dataclasses import dataclass

from streaming_vlm_mlx.matches.people import Rgb

HALF_LENGTH = 11.885
SINGLES = 4.115
DOUBLES = 5.485
SERVICE = 6.40
NET_CENTRE = 0.914
NET_POST = 1.07
POST_X = 6.40
WALL_Y = 18.3
WALL_X = 9.8

NEAR, FAR = -1, 1


def net_height(x: float) -> float:
    """Return the height of the net's band at `x`."""
    return NET_CENTRE + (NET_POST - NET_CENTRE) * min(abs(x) / POST_X, 1.0)


def in_court(x: float, y: float, end: int) -> bool:
    """Whether a ball that lands at (`x`, `y`) is good in the singles court of `end` (its sign of y); lines are in."""
    return abs(x) <= SINGLES and 0 < y * end <= HALF_LENGTH


def in_service_box(x: float, y: float, end: int, side: int) -> bool:
    """Whether a serve that lands at (`x`, `y`) is good in the box of `end` whose x has the sign `side`."""
    return 0 <= x * side <= SINGLES and 0 < y * end <= SERVICE


def end_name(end: int) -> str:
    """Return ``near`` or ``far``, as the camera sees it."""
    return "near" if end == NEAR else "far"


@dataclass(frozen=True, slots=True)
class Surface:
    """The colours of a court; `stripes` is the relative contrast of mown bands, 0 for none."""

    name: str
    inner: Rgb
    outer: Rgb
    wall: Rgb
    seats: Rgb
    stripes: float = 0.0

    @property
    def grounds(self) -> tuple[Rgb, Rgb, Rgb]:
        """The colours behind the players."""
        return self.inner, self.outer, self.wall


SURFACES = (
    Surface("blue on green", (52, 92, 160), (74, 128, 84), (54, 88, 142), (60, 74, 104)),
    Surface("blue", (26, 104, 180), (66, 150, 204), (38, 78, 136), (44, 62, 104)),
    Surface("clay", (196, 98, 58), (178, 86, 50), (82, 118, 138), (96, 88, 74)),
    Surface("grass", (96, 142, 64), (82, 124, 56), (50, 106, 80), (70, 86, 66), stripes=0.05),
    Surface("purple on green", (104, 82, 156), (66, 118, 90), (78, 62, 122), (82, 78, 100)),
    Surface("grey", (118, 124, 134), (88, 94, 104), (40, 44, 52), (92, 90, 92)),
    Surface("teal", (28, 116, 124), (40, 86, 98), (14, 52, 62), (64, 82, 86)),
    Surface("navy", (42, 58, 116), (34, 42, 68), (20, 22, 40), (48, 50, 66)),
)
