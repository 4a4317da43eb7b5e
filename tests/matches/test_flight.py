from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.matches.flight import GRAVITY, Walls, bounce, cut, drop, position, throw, tumble

WALLS = Walls(9.0, 18.0)
x, y, z = st.floats(-8, 8), st.floats(-17, 17), st.floats(0.2, 3)


@given(x, y, z, x, y, st.floats(0.3, 2.5), st.floats(9, 13))
def test_a_throw_arrives(
    x0: float, y0: float, z0: float, x1: float, y1: float, duration: float, gravity: float
) -> None:
    arc = throw((x0, y0, z0), (x1, y1, 0.0), 5.0, duration, gravity)
    assert arc.at(5.0) == pytest.approx((x0, y0, z0))
    assert arc.at(arc.end) == pytest.approx((x1, y1, 0.0), abs=1e-9)
    assert arc.speed_at(arc.end)[2] == pytest.approx(arc.velocity[2] - gravity * duration)


@given(x, y, z, st.floats(-30, 30), st.floats(-40, 40))
def test_a_ball_bounces_on_the_ground_between_the_walls_until_it_rests(
    x0: float, y0: float, z0: float, vx: float, vy: float
) -> None:
    first = drop((x0, y0, z0), (vx, vy, 0.0), 0.0)
    landing = first.at(first.end)
    if abs(landing[0]) > WALLS.x or abs(landing[1]) > WALLS.y:
        return
    path = [first, *tumble(first, WALLS)]
    for before, after in pairwise(path):
        assert before.end == pytest.approx(after.start)
        assert before.at(before.end) == pytest.approx(after.origin, abs=1e-6)
    assert path[-1].velocity == (0.0, 0.0, 0.0)
    starts = [a.start for a in path]
    for i in range(int(path[-1].start * 20) + 1):
        px, py, pz = position(path, starts, i / 20) or (0, 0, 0)
        assert abs(px) <= WALLS.x + 1e-6
        assert abs(py) <= WALLS.y + 1e-6
        assert pz >= -1e-6


@given(z, st.floats(-3, 3))
def test_a_bounce_is_lower_than_the_fall(height: float, speed: float) -> None:
    fall = drop((0.0, 0.0, height), (speed, 0.0, 0.0), 0.0)
    up = bounce(fall)
    assert up.velocity[2] ** 2 / (2 * GRAVITY) < height
    assert abs(up.velocity[0]) <= abs(speed)
    assert up.at(up.end)[2] == pytest.approx(0.0, abs=1e-9)


def test_a_path_that_is_cut_stays_as_it_was() -> None:
    first = throw((0, 0, 1), (0, 5, 0), 0.0, 1.0)
    path = [first, bounce(first)]
    shorter = cut(path, 1.2)
    assert position(shorter, [a.start for a in shorter], 1.1) == path[1].at(1.1)
    assert position(shorter, [a.start for a in shorter], 1.3) is None
    assert cut(path, 0.5) == [first.until(0.5)]


def test_a_ball_that_rolls_into_a_wall_stops_there() -> None:
    fall = drop((0.0, 17.0, 0.05), (0.0, 6.0, 0.0), 0.0)
    rest = tumble(fall, WALLS)[-1]
    assert abs(rest.origin[1]) <= 18.0
    assert rest.start < 20
