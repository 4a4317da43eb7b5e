"""Paint everything that stands still: court, walls, stands, crowd and the umpire's chair."""

from dataclasses import dataclass
from math import hypot

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from streaming_vlm_mlx.matches.camera import HEIGHT, WIDTH, Camera
from streaming_vlm_mlx.matches.people import HAIRS, SKINS, Rgb, shaded
from streaming_vlm_mlx.matches.tennis.court import DOUBLES, HALF_LENGTH, SERVICE, SINGLES, WALL_X, WALL_Y, Surface

# The plate has a margin for pans and a higher resolution for zooms; it is painted `FINE` times as large.
MARGIN_X, MARGIN_Y, DENSE, FINE = 56, 22, 1.15, 2
NEAR_EDGE = -21.0
WALL_HEIGHT, LINE, BASELINE = 1.25, 0.075, 0.12
CHAIR_X = 8.5
SEAT, TREAD, RISE, ROWS = 0.62, 0.8, 0.44, 14
CROWDS = 3
WHITE: Rgb = (240, 242, 240)
UMPIRE: Rgb = (38, 42, 58)
BANNERS = ("OPEN", "SUMMER", "CITY CUP", "HARBOUR", "GRAND", "NORTH")

Point = tuple[float, float, float]


def on_plate(spots: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return points of the base picture [..., 3] in plate pixels, with their scale."""
    return np.asarray((spots + np.array([MARGIN_X, MARGIN_Y, 0.0])) * DENSE)


@dataclass(frozen=True, slots=True)
class Easel:
    """Paints world coordinates on an image of a plate, `FINE` times as large."""

    camera: Camera
    image: Image.Image

    def pen(self) -> ImageDraw.ImageDraw:
        """Return a drawing context of the image."""
        return ImageDraw.Draw(self.image)

    def spots(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return pixel and pixels a metre [n, 3] of world points [n, 3]."""
        return on_plate(self.camera.project(points)) * FINE

    def area(self, points: list[Point], colour: Rgb) -> None:
        """Fill a polygon of world points."""
        self.pen().polygon([(x, y) for x, y, _ in self.spots(points)], fill=colour)

    def strip(self, a: tuple[float, float], b: tuple[float, float], wide: float, colour: Rgb) -> None:
        """Paint a line on the ground, `wide` metres."""
        length = hypot(b[0] - a[0], b[1] - a[1])
        nx, ny = -(b[1] - a[1]) / length * wide / 2, (b[0] - a[0]) / length * wide / 2
        corners = [(a[0] + nx, a[1] + ny), (b[0] + nx, b[1] + ny), (b[0] - nx, b[1] - ny), (a[0] - nx, a[1] - ny)]
        self.area([(x, y, 0.0) for x, y in corners], colour)


def paint_plates(camera: Camera, surface: Surface, rng: np.random.Generator) -> list[Image.Image]:
    """Return the arena as RGB plates; only the crowd differs between them."""
    size = (round((WIDTH + 2 * MARGIN_X) * DENSE) * FINE, round((HEIGHT + 2 * MARGIN_Y) * DENSE) * FINE)
    easel = Easel(camera, Image.new("RGB", size, shaded(surface.seats, 0.55)))
    side = int(rng.choice((-1, 1)))
    seats = _seats(rng)
    plates = []
    for _ in range(CROWDS):
        crowd = Easel(camera, easel.image.copy())
        _stands(crowd, surface)
        _crowd(crowd, seats, rng)
        plates.append(Easel(camera, crowd.image.filter(ImageFilter.GaussianBlur(1.5))))
    seed = rng.integers(2**32)
    for plate in plates:
        paint = np.random.default_rng(seed)
        _ground(plate, surface, paint)
        _lines(plate)
        _walls(plate, surface, paint)
        _chair(plate, side)
        _benches(plate, side)
        _stadium_shadow(plate, paint)
    return [p.image.reduce(FINE) for p in plates]


def _ground(easel: Easel, surface: Surface, rng: np.random.Generator) -> None:
    easel.area(_floor(WALL_X, NEAR_EDGE, WALL_Y), surface.outer)
    easel.area(_floor(DOUBLES, -HALF_LENGTH, HALF_LENGTH), surface.inner)
    if surface.stripes:
        step = HALF_LENGTH / 6
        for i in range(0, 12, 2):
            y = -HALF_LENGTH + i * step
            easel.area(_floor(DOUBLES, y, y + step), shaded(surface.inner, 1 + surface.stripes))
    _mottled(easel, rng)


def _floor(x: float, y0: float, y1: float) -> list[Point]:
    return [(-x, y0, 0.0), (x, y0, 0.0), (x, y1, 0.0), (-x, y1, 0.0)]


def _mottled(easel: Easel, rng: np.random.Generator) -> None:
    """Add soft mottling to everything painted so far."""
    width, height = easel.image.size
    spots = rng.normal(128, 26, (height // 24, width // 24)).clip(0, 255).astype(np.uint8)
    cloud = Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)
    dark = Image.eval(easel.image, lambda v: int(v * 0.93))
    easel.image.paste(dark, mask=cloud.point(lambda v: min(255, max(0, 2 * (v - 128)))))


def _lines(easel: Easel) -> None:
    for sign in (-1, 1):
        base, service = sign * HALF_LENGTH, sign * SERVICE
        easel.strip((-DOUBLES, base), (DOUBLES, base), BASELINE, WHITE)
        easel.strip((-SINGLES, service), (SINGLES, service), LINE, WHITE)
        easel.strip((0.0, base), (0.0, base - sign * 0.35), LINE, WHITE)
        for x in (sign * SINGLES, sign * DOUBLES):
            easel.strip((x, -HALF_LENGTH), (x, HALF_LENGTH), LINE, WHITE)
    easel.strip((0.0, -SERVICE), (0.0, SERVICE), LINE, WHITE)


def _walls(easel: Easel, surface: Surface, rng: np.random.Generator) -> None:
    top = WALL_HEIGHT
    for x in (-WALL_X, WALL_X):
        wall = [(x, NEAR_EDGE, 0.0), (x, WALL_Y, 0.0), (x, WALL_Y, top), (x, NEAR_EDGE, top)]
        easel.area(wall, shaded(surface.wall, 0.85))
        easel.area([(x, NEAR_EDGE, top), (x, WALL_Y, top), (x, WALL_Y, top + 0.1), (x, NEAR_EDGE, top + 0.1)], WHITE)
    easel.area(
        [(-WALL_X, WALL_Y, 0.0), (WALL_X, WALL_Y, 0.0), (WALL_X, WALL_Y, top), (-WALL_X, WALL_Y, top)], surface.wall
    )
    easel.area(
        [(-WALL_X, WALL_Y, top), (WALL_X, WALL_Y, top), (WALL_X, WALL_Y, top + 0.1), (-WALL_X, WALL_Y, top + 0.1)],
        WHITE,
    )
    for x in (-6.6, 0.0, 6.6):
        px, py, metre = easel.spots([(x, WALL_Y, 0.32)])[0]
        font = ImageFont.load_default(max(8.0, 0.8 * metre))
        text = BANNERS[rng.integers(len(BANNERS))]
        easel.pen().text((px, py), text, font=font, fill=(208, 212, 216), anchor="ms")


def _stands(easel: Easel, surface: Surface) -> None:
    deep, high = ROWS * TREAD, WALL_HEIGHT + ROWS * RISE
    x, y = WALL_X, WALL_Y
    easel.area(
        [(-x, y, WALL_HEIGHT), (x, y, WALL_HEIGHT), (x + deep, y + deep, high), (-x - deep, y + deep, high)],
        surface.seats,
    )
    for sign in (-1, 1):
        edge = sign * x
        rear = sign * (x + deep)
        easel.area(
            [(edge, NEAR_EDGE, WALL_HEIGHT), (edge, y, WALL_HEIGHT), (rear, y + deep, high), (rear, NEAR_EDGE, high)],
            shaded(surface.seats, 0.9),
        )


def _seats(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the occupied seats [n, 3] in metres, farthest first."""
    places = []
    for row in range(ROWS):
        back, up = (row + 0.6) * TREAD, WALL_HEIGHT + row * RISE
        across = np.arange(-WALL_X - back, WALL_X + back, SEAT)
        places.append(np.stack([across, np.full_like(across, WALL_Y + back), np.full_like(across, up)], axis=1))
        along = np.arange(NEAR_EDGE, WALL_Y + back - 1, SEAT)
        for sign in (-1, 1):
            places.append(
                np.stack([np.full_like(along, sign * (WALL_X + back)), along, np.full_like(along, up)], axis=1)
            )
    seats = np.concatenate(places)
    seats = seats[rng.random(len(seats)) < rng.uniform(0.7, 0.95)]
    # A stairway every 9 m.
    walk = np.where(seats[:, 1] > WALL_Y, seats[:, 0], seats[:, 1]) % 9.0 > 0.9
    seats = seats[walk]
    return np.asarray(seats[np.argsort(-seats[:, 1] - 0.01 * np.abs(seats[:, 0]))])


def _crowd(easel: Easel, seats: npt.NDArray[np.float64], rng: np.random.Generator) -> None:
    paint = np.random.default_rng(len(seats))
    shirts = paint.integers(40, 225, (len(seats), 3))
    grey = shirts.mean(axis=1, keepdims=True)
    muted = (0.3 * shirts + 0.55 * grey).astype(int)
    moved = easel.spots(seats + rng.normal(0, 0.05, seats.shape))
    pen = easel.pen()
    width, height = easel.image.size
    for (x, y, metre), shirt, who in zip(moved, muted, paint.integers(0, 36, len(seats)), strict=True):
        if not (-20 < x < width + 20 and -20 < y < height + 20):
            continue
        w, h, r = 0.27 * metre, 0.5 * metre, 0.15 * metre
        pen.ellipse((x - w, y - h, x + w, y + 0.4 * h), fill=tuple(shirt))
        pen.ellipse((x - r, y - h - 1.6 * r, x + r, y - h + 0.4 * r), fill=shaded(SKINS[who % 6], 0.72))
        pen.pieslice((x - r, y - h - 1.9 * r, x + r, y - h + 0.1 * r), 180, 360, fill=shaded(HAIRS[who // 6], 0.7))


def _chair(easel: Easel, side: int) -> None:
    x = side * CHAIR_X
    for dx in (-0.4, 0.4):
        easel.area(
            [
                (x + dx - 0.05, 0, 0),
                (x + dx + 0.05, 0, 0),
                (x + 0.7 * dx + 0.05, 0, 1.7),
                (x + 0.7 * dx - 0.05, 0, 1.7),
            ],
            WHITE,
        )
    for z in (0.5, 1.0):
        easel.area([(x - 0.35, 0, z), (x + 0.35, 0, z), (x + 0.35, 0, z + 0.08), (x - 0.35, 0, z + 0.08)], WHITE)
    easel.area([(x - 0.42, 0, 1.6), (x + 0.42, 0, 1.6), (x + 0.42, 0, 2.5), (x - 0.42, 0, 2.5)], (40, 84, 60))
    easel.area([(x - 0.27, 0, 1.7), (x + 0.27, 0, 1.7), (x + 0.24, 0, 2.5), (x - 0.24, 0, 2.5)], UMPIRE)
    px, py, metre = easel.spots([(x, 0, 2.68)])[0]
    r = 0.17 * metre
    easel.pen().ellipse((px - r, py - r, px + r, py + r), fill=SKINS[1])


def _benches(easel: Easel, side: int) -> None:
    for y in (-3.4, 3.4):
        x = side * (WALL_X - 0.7)
        easel.area(
            [(x - 0.3, y - 0.9, 0.45), (x + 0.3, y - 0.9, 0.45), (x + 0.3, y + 0.9, 0.45), (x - 0.3, y + 0.9, 0.45)],
            WHITE,
        )
        easel.area(
            [(x - 0.3, y - 0.9, 0.1), (x + 0.3, y - 0.9, 0.1), (x + 0.3, y - 0.9, 0.45), (x - 0.3, y - 0.9, 0.45)],
            (150, 150, 150),
        )


def _stadium_shadow(easel: Easel, rng: np.random.Generator) -> None:
    """Cast the shadow of a stand over a part of the court, in some matches."""
    if rng.random() > 0.3:
        return
    sign, edge, slant = int(rng.choice((-1, 1))), rng.uniform(-3, 4), rng.uniform(-0.15, 0.15)
    far = sign * (WALL_X + 14)
    corners = [
        (edge + slant * NEAR_EDGE, NEAR_EDGE, 0.0),
        (edge + slant * WALL_Y, WALL_Y, 0.0),
        (far, WALL_Y, 0.0),
        (far, NEAR_EDGE, 0.0),
    ]
    mask = Image.new("L", easel.image.size, 0)
    ImageDraw.Draw(mask).polygon([(x, y) for x, y, _ in easel.spots(corners)], fill=255)
    dark = Image.eval(easel.image, lambda v: int(v * 0.74))
    easel.image.paste(dark, mask=mask.filter(ImageFilter.GaussianBlur(3)))
