"""The court in metres: x to the right, y away from the camera, z up, the origin under the middle of the net.

Source: ITF Rules of Tennis, rule 1 and appendix VIII.
"""

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
