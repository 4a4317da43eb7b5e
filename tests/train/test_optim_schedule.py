import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.config import ScheduleConfig
from streaming_vlm_mlx.train.optim import rate_fraction

configs = st.integers(1, 500).flatmap(
    lambda steps: st.builds(
        ScheduleConfig, steps=st.just(steps), warmup_steps=st.integers(0, steps), final_fraction=st.floats(0, 1)
    )
)


@given(configs)
def test_it_rises_to_one_and_falls_to_the_end(config: ScheduleConfig) -> None:
    course = [rate_fraction(step, config) for step in range(config.steps + 1)]
    warm = config.warmup_steps
    assert all(a < b for a, b in pairwise(course[:warm]))
    assert max(course[: warm + 1]) == pytest.approx(1.0)
    assert all(a >= b - 1e-12 for a, b in pairwise(course[warm:]))
    assert course[0] > 0
    if warm < config.steps:
        assert course[-1] == pytest.approx(config.final_fraction)


def test_half_way_down_is_half_way_between() -> None:
    config = ScheduleConfig(steps=110, warmup_steps=10, final_fraction=0.2)
    assert rate_fraction(0, config) == pytest.approx(0.1)
    assert rate_fraction(60, config) == pytest.approx(0.6)
    assert rate_fraction(35, config) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(("steps", "warmup"), [(50, 5), (100, 10), (1, 0), (10_000, 10)])
def test_a_shorter_run_warms_up_in_proportion(steps: int, warmup: int) -> None:
    config = ScheduleConfig(steps=100, warmup_steps=10, final_fraction=0.2)
    assert config.of_length(steps) == {"steps": steps, "warmup_steps": warmup}


@pytest.mark.parametrize("values", [{"steps": 0}, {"steps": 5, "warmup_steps": 6}, {"final_fraction": 1.5}], ids=str)
def test_bad_schedules_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(SvmError, match=f"schedule.{list(values)[-1]} is"):
        ScheduleConfig.from_dict(values)
