"""The scoreboard in the picture: the score bug, and the serve clock beside it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import hypot

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from streaming_vlm_mlx.matches.match_truth import BoardState, Box
from streaming_vlm_mlx.matches.people import Rgb, shaded
from streaming_vlm_mlx.matches.tennis.players import Cast
from streaming_vlm_mlx.matches.tennis.point import Point, Shot
from streaming_vlm_mlx.matches.tennis.rules import Score, point_texts

# Seconds that a speed is shown after the ball lands, unless the serve is returned.
KEPT = 2.9
# Seconds from a fault to the announcement of the second serve.
ANNOUNCED = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What the serve clock shows from `start` to `end`.

    Attributes:
        start: seconds.
        end: seconds.
        serve: 1 for a first serve, 2 for a second.
        speed: km/h; None before the serve.
    """

    start: float
    end: float
    serve: int
    speed: int | None = None

    @property
    def text(self) -> str:
        """The text on the clock."""
        name = "1ST" if self.serve == 1 else "2ND"
        return name if self.speed is None else f"{name} {self.speed}"


def readings(points: Iterable[Point]) -> tuple[Reading, ...]:
    """Return the readings of the clock during `points`, in order of time."""
    return tuple(r for point in points for r in _readings(point))


def _readings(point: Point) -> Iterator[Reading]:
    for shot in (s for s in point.shots if s.stroke == "serve"):
        serve = 1 if shot.detail == "first" else 2
        following = next((s.time for s in point.shots if s.time > shot.time), None)
        if following is None:
            yield Reading(shot.time, shot.land_time + KEPT, serve, speed(shot))
        elif shot.miss:
            announced = shot.land_time + ANNOUNCED
            yield Reading(shot.time, announced, serve, speed(shot))
            yield Reading(announced, following, 2)
        else:
            yield Reading(shot.time, following, serve, speed(shot))


def speed(shot: Shot) -> int:
    """Return the mean horizontal speed of a serve until it lands, km/h."""
    metres = hypot(shot.landing[0] - shot.hit[0], shot.landing[1] - shot.hit[1])
    return round(3.6 * metres / (shot.land_time - shot.time))


# Left edge and width of each field in pixels of the bug; letters and digits are 22 pixels high.
COLUMNS = {
    "server": (4, 14),
    "kit": (20, 14),
    "code": (36, 68),
    "sets": (108, 24),
    "games": (134, 24),
    "points": (162, 48),
}
WIDTH, ROW, FONT_SIZE = 212, 33, 30
# The serve clock: its distance to the bug, and its width.
CLOCK_GAP, CLOCK_WIDTH = 4, 136
PAPERS: tuple[Rgb, ...] = ((12, 16, 28), (18, 40, 30), (28, 18, 44), (22, 24, 26), (8, 36, 66))
ACCENTS: tuple[Rgb, ...] = ((240, 220, 60), (250, 250, 250), (120, 230, 120), (120, 210, 250))


def board_state(time: float, cast: Cast, score: Score) -> BoardState:
    """Return the state of the bug for `score` from `time` on."""
    pairs = {
        "code": cast.codes,
        "sets": (str(score.sets[0]), str(score.sets[1])),
        "games": (str(score.games[0]), str(score.games[1])),
        "points": point_texts(score),
    }
    return BoardState(time, cast.names[score.server], pairs)


@dataclass(frozen=True, slots=True)
class Bug:
    """The score bug of one match: players, upper left `corner` and colours."""

    cast: Cast
    corner: tuple[int, int]
    paper: Rgb
    accent: Rgb

    @property
    def layout(self) -> dict[str, tuple[Box, Box]]:
        """The box of each field in both rows, pixels of the picture."""
        x, y = self.corner
        return {
            field: ((x + left, y, x + left + wide, y + ROW), (x + left, y + ROW, x + left + wide, y + 2 * ROW))
            for field, (left, wide) in COLUMNS.items()
        } | {"clock": (self._clock_box(), self._clock_box())}

    def _clock_box(self) -> Box:
        x, y = self.clock_corner
        return x, y, x + CLOCK_WIDTH, y + ROW

    @property
    def clock_corner(self) -> tuple[int, int]:
        """The upper left corner of the serve clock, pixels of the picture."""
        x, y = self.corner
        return x + WIDTH + CLOCK_GAP, y

    def clock(self, reading: Reading) -> Image.Image:
        """Return the picture of the serve clock with `reading`."""
        image = Image.new("RGB", (CLOCK_WIDTH, ROW), shaded(self.paper, 2.2))
        font = ImageFont.load_default(FONT_SIZE)
        ink = self.accent if reading.serve == 1 else (250, 250, 250)
        ImageDraw.Draw(image).text(
            (8, ROW - 6), reading.text, font=font, fill=ink, anchor="ls", stroke_width=1, stroke_fill=ink
        )
        return image

    def image(self, state: BoardState) -> Image.Image:
        """Return the picture of the bug in `state`."""
        image = Image.new("RGB", (WIDTH, 2 * ROW), self.paper)
        draw = ImageDraw.Draw(image)
        left, wide = COLUMNS["points"]
        draw.rectangle((left, 0, left + wide + 1, 2 * ROW), fill=shaded(self.paper, 2.2))
        draw.line((0, ROW, WIDTH, ROW), fill=shaded(self.paper, 2.2))
        font = ImageFont.load_default(FONT_SIZE)
        for row in (0, 1):
            self._row(draw, row, state, font)
        return image

    def _row(
        self, draw: ImageDraw.ImageDraw, row: int, state: BoardState, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    ) -> None:
        top, middle = row * ROW, row * ROW + ROW / 2
        kit = self.cast.kits[row]
        left, wide = COLUMNS["kit"]
        draw.rectangle((left, top + 4, left + wide - 2, top + ROW - 5), fill=kit.rgb, outline=(225, 225, 225))
        if state.server == kit.name:
            left, _ = COLUMNS["server"]
            draw.ellipse((left, middle - 6, left + 12, middle + 6), fill=(232, 240, 60))
        for field, texts in state.fields.items():
            left, wide = COLUMNS[field]
            ink = self.accent if field == "points" else (250, 250, 250)
            # "mm" would centre on the line of the font, which is lower than its capitals.
            draw.text(
                (left + wide / 2, top + ROW - 6),
                texts[row],
                font=font,
                fill=ink,
                anchor="ms",
                stroke_width=1,
                stroke_fill=ink,
            )


def random_bug(rng: np.random.Generator, cast: Cast) -> Bug:
    """Draw the place and the colours of a bug."""
    corner = (int(rng.integers(8, 17)), int(rng.integers(8, 15)))
    return Bug(cast, corner, PAPERS[rng.integers(len(PAPERS))], ACCENTS[rng.integers(len(ACCENTS))])
