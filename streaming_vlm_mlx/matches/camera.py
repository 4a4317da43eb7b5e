"""A broadcast camera: it stands still behind one end, and its picture pans and zooms a little after play.

The lens projects the world once, onto the *base* picture; a pan or zoom is a shift and a scale of that, as when a
larger picture is cropped. So what stands still can be painted once and what moves still fits it exactly.
"""

from dataclasses import dataclass
from math import atan, cos, sin, tan

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 640, 360


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the camera is and what its lens does.

    Attributes:
        height: metres above the ground.
        back: metres behind the world's origin, at y = -back.
        tilt: radians below the horizon.
        focal: pixels.
        centre: pixel of the base picture that the lens points to.
    """

    height: float
    back: float
    tilt: float
    focal: float
    centre: tuple[float, float]

    def project(self, points: npt.ArrayLike) -> Floats:
        """Return [..., 3] for world points [..., 3] in metres: pixels right and down, and pixels a metre there."""
        x, y, z = np.moveaxis(np.asarray(points, dtype=np.float64), -1, 0)
        forward, up = y + self.back, z - self.height
        depth = forward * cos(self.tilt) - up * sin(self.tilt)
        rise = forward * sin(self.tilt) + up * cos(self.tilt)
        scale = self.focal / np.maximum(depth, 0.5)
        return np.stack([self.centre[0] + scale * x, self.centre[1] - scale * rise, scale], axis=-1)

    def spot(self, x: float, y: float, z: float = 0.0) -> tuple[float, float]:
        """Return the pixel of one world point."""
        px, py, _ = self.project((x, y, z))
        return float(px), float(py)


def framed(height: float, back: float, depths: tuple[float, float], rows: tuple[float, float]) -> Camera:
    """Return the camera at `height` and `back` that shows the ground at two depths in two rows of the picture.

    Args:
        height: metres.
        back: metres behind the origin.
        depths: y of a near and a far line on the ground, metres.
        rows: where they are to be seen, pixels from the top.
    """
    near, far = (atan(height / (back + y)) for y in depths)
    tilt = (near + far) / 2
    focal = (rows[0] - rows[1]) / (tan(near - tilt) - tan(far - tilt))
    return Camera(height, back, tilt, focal, (WIDTH / 2, rows[0] - focal * tan(near - tilt)))


@dataclass(frozen=True, slots=True)
class View:
    """One frame's pan and zoom: base pixel (`x`, `y`) is in the middle, enlarged `zoom` times."""

    x: float
    y: float
    zoom: float

    def apply(self, spots: Floats) -> Floats:
        """Return projected points [..., 3] as this view shows them, their scale with them."""
        middle = np.array([self.x, self.y, 0.0])
        return np.asarray((spots - middle) * self.zoom + np.array([WIDTH / 2, HEIGHT / 2, 0.0]))


def followed(wanted: Floats, fps: int, seconds: float) -> Floats:
    """Return `wanted` [n, k] smoothed as a cameraman follows: late and softly, two lags of `seconds` in a row."""
    share = 1 - np.exp(-1 / (fps * seconds))
    out = wanted.copy()
    for _ in range(2):
        for i in range(1, len(out)):
            out[i] = out[i - 1] + share * (out[i] - out[i - 1])
    return out
