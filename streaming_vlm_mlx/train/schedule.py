"""The learning rate over a run: a linear warm-up, then half a cosine (Loshchilov and Hutter, arXiv 1608.03983)."""

import math
from dataclasses import dataclass

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.from_dict import FromDict


@dataclass(frozen=True)
class ScheduleConfig(FromDict):
    """How long a run is, and how its learning rate goes.

    Attributes:
        steps: updates of the weights in all.
        warmup_steps: over which the rate rises from 0.
        final_fraction: of the highest rate that is left at the end.
    """

    steps: int = 1000
    warmup_steps: int = 50
    final_fraction: float = 0.1

    def of_length(self, steps: int) -> dict[str, int]:
        """Return the settings of a run of `steps`; a shorter one warms up in proportion."""
        return {"steps": steps, "warmup_steps": min(self.warmup_steps, self.warmup_steps * steps // self.steps)}

    def check(self) -> None:
        """Refuse a run of no steps, and fractions that are none.

        Raises:
            SvmError: names the setting.
        """
        if self.steps < 1:
            raise SvmError(f"schedule.steps is {self.steps}; it must be 1 or more.")
        if not 0 <= self.warmup_steps <= self.steps:
            raise SvmError(
                f"schedule.warmup_steps is {self.warmup_steps}; it must be from 0 to {self.steps}, the steps."
            )
        if not 0 <= self.final_fraction <= 1:
            raise SvmError(f"schedule.final_fraction is {self.final_fraction}; it must be from 0 to 1.")


def rate_fraction(step: int, config: ScheduleConfig) -> float:
    """Return the share of the highest learning rate that update number `step`, counted from 0, is made with."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    through = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * min(through, 1.0))) / 2
    return config.final_fraction + (1 - config.final_fraction) * cosine
