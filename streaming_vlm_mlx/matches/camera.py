"""A broadcast camera: projection, pans and zooms, colour, grain, and the clip as a file.

The camera stands still. It projects the world once, onto the *base* picture; a pan or a zoom shifts and scales that
picture, like a crop of a larger one. So everything that stands still is painted once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import atan, cos, sin, tan
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.atomic import replacing

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 640, 360


@dataclass(frozen=True, slots=True)
class Camera:
    """The place and the lens of the camera.

    Attributes:
        height: metres above the ground.
        back: metres behind the origin: the camera is at y = -back.
        tilt: radians below the horizon.
        focal: pixels.
        centre: pixel of the base picture on the optical axis.
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
    """Return the camera at `height` and `back` that shows two lines of the ground in two given rows.

    Args:
        height: metres.
        back: metres behind the origin.
        depths: y of a near and a far line on the ground, metres.
        rows: their rows in the picture, pixels from the top.
    """
    near, far = (atan(height / (back + y)) for y in depths)
    tilt = (near + far) / 2
    focal = (rows[0] - rows[1]) / (tan(near - tilt) - tan(far - tilt))
    return Camera(height, back, tilt, focal, (WIDTH / 2, rows[0] - focal * tan(near - tilt)))


@dataclass(frozen=True, slots=True)
class View:
    """The pan and zoom of one frame: base pixel (`x`, `y`) is in the centre, magnified `zoom` times."""

    x: float
    y: float
    zoom: float

    def apply(self, spots: Floats) -> Floats:
        """Return projected points [..., 3] in this view, with their scale."""
        middle = np.array([self.x, self.y, 0.0])
        return np.asarray((spots - middle) * self.zoom + np.array([WIDTH / 2, HEIGHT / 2, 0.0]))


def followed(wanted: Floats, fps: int, seconds: float) -> Floats:
    """Return `wanted` [n, k] as a camera operator follows it: through two low-pass filters of `seconds` each."""
    share = 1 - np.exp(-1 / (fps * seconds))
    out = wanted.copy()
    for _ in range(2):
        for i in range(1, len(out)):
            out[i] = out[i - 1] + share * (out[i] - out[i - 1])
    return out


Pixels = npt.NDArray[np.uint8]

GRAINS = 5


@dataclass(frozen=True, slots=True)
class Grade:
    """Light, colour and compression of a match.

    Attributes:
        gain: a factor for each channel: brightness and warmth.
        gamma: exponent; below 1 lifts the shadows.
        contrast: factor around mid-grey; 1 for none.
        grain: standard deviation of the noise, in 8-bit steps.
        vignette: how much darker the corners are, 0 to 1.
        crf: H.264's constant rate factor, higher is coarser.
    """

    gain: tuple[float, float, float]
    gamma: float
    contrast: float
    grain: float
    vignette: float
    crf: int

    def table(self) -> list[int]:
        """Return the lookup tables of red, green and blue, 256 values each, one after the other."""
        ramp = np.arange(256) / 255
        curve = (ramp**self.gamma - 0.5) * self.contrast + 0.5
        values = np.concatenate([np.clip(curve * g, 0, 1) for g in self.gain])
        return [int(v) for v in np.rint(values * 255)]


def random_grade(rng: np.random.Generator) -> Grade:
    """Draw a grade between a grey afternoon and floodlight."""
    light, warmth = rng.uniform(0.84, 1.1), rng.uniform(-0.06, 0.06)
    return Grade(
        gain=(light * (1 + warmth), light, light * (1 - warmth)),
        gamma=rng.uniform(0.86, 1.14),
        contrast=rng.uniform(0.93, 1.12),
        grain=rng.uniform(0.5, 3.2),
        vignette=rng.uniform(0.0, 0.22),
        crf=int(rng.integers(23, 31)),
    )


class Grain:
    """Noise for frames of one size: a few sheets, with a new shift for each frame."""

    def __init__(self, rng: np.random.Generator, grade: Grade, size: tuple[int, int], frames: int) -> None:
        width, height = size
        self._margin = 32
        shape = (height + self._margin, width + self._margin)
        self._sheets = rng.normal(0, grade.grain, (GRAINS, *shape)).round().astype(np.int16)
        self._which = rng.integers(0, GRAINS, frames)
        self._shift = rng.integers(0, self._margin, (frames, 2))

    def over(self, pixels: Pixels, frame: int) -> Pixels:
        """Return `pixels` [height, width, 3] plus the noise of `frame`."""
        height, width, _ = pixels.shape
        dy, dx = self._shift[frame]
        sheet = self._sheets[self._which[frame], dy : dy + height, dx : dx + width, None]
        noisy: Pixels = np.clip(pixels + sheet, 0, 255).astype(np.uint8)
        return noisy


def vignetted(pixels: Pixels, amount: float) -> Pixels:
    """Return `pixels` [height, width, 3] with the corners darkened by `amount`, 0 to 1."""
    height, width, _ = pixels.shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    shade = 1 - amount * np.clip((x * x + y * y) / 2, 0, 1)
    darker: Pixels = (pixels * shade[..., None]).astype(np.uint8)
    return darker


SECONDS_A_KEYFRAME = 2


def write_clip(path: Path, frames: Iterable[Pixels], size: tuple[int, int], fps: int, crf: int) -> None:
    """Replace `path` with an mp4 of `frames`. One thread encodes, so the same frames give the same bytes.

    Args:
        path: the clip.
        frames: uint8 [height, width, 3] each, RGB.
        size: width and height, both even.
        fps: frames a second.
        crf: constant rate factor, higher is coarser.

    Raises:
        SvmError: the folder cannot be written, or the disk is full.
    """
    with replacing(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "veryfast", "g": str(fps * SECONDS_A_KEYFRAME)}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
