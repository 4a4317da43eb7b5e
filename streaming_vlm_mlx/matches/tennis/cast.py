"""Who is on court today: two players, their kits, codes and habits."""

from dataclasses import dataclass

import numpy as np

from streaming_vlm_mlx.matches.kits import Kit, Rgb, pairs
from streaming_vlm_mlx.matches.people import Look, random_look, shaded
from streaming_vlm_mlx.matches.tennis.players import Skill, random_skill
from streaming_vlm_mlx.matches.tennis.surfaces import Surface

CODES = (
    *("ADA", "BRO", "CEL", "DAN", "ELM", "FOX", "GRE", "HAL", "IVO", "JON", "KAR", "LUN", "MAR"),
    *("NIL", "ODE", "PIM", "QUI", "ROS", "SAL", "TOR", "ULM", "VAN", "WES", "XAV", "YOR", "ZEL"),
)


@dataclass(frozen=True, slots=True)
class Cast:
    """Both players; pairs are in the order of the scoreboard's rows."""

    kits: tuple[Kit, Kit]
    looks: tuple[Look, Look]
    codes: tuple[str, str]
    skills: tuple[Skill, Skill]

    @property
    def names(self) -> tuple[str, str]:
        """The kits' colours by name."""
        return self.kits[0].name, self.kits[1].name


def random_cast(rng: np.random.Generator, surface: Surface) -> Cast:
    """Draw two players whose kits stand apart from each other and from the court."""
    choices = pairs(surface.grounds)
    kits = choices[rng.integers(len(choices))]
    first, second = rng.choice(len(CODES), 2, replace=False)
    looks = (_dressed(rng, kits[0].rgb), _dressed(rng, kits[1].rgb))
    return Cast(kits, looks, (CODES[first], CODES[second]), (random_skill(rng), random_skill(rng)))


def _dressed(rng: np.random.Generator, kit: Rgb) -> Look:
    jitter = rng.integers(-8, 9, 3)
    shirt = (_channel(kit[0] + jitter[0]), _channel(kit[1] + jitter[1]), _channel(kit[2] + jitter[2]))
    return random_look(rng, shirt, shaded(shirt, rng.uniform(0.66, 0.95)))


def _channel(value: float) -> int:
    return int(min(max(value, 0), 255))
