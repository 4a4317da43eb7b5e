"""The players: their looks, their skills, and the chances of their strokes."""

from dataclasses import dataclass

import numpy as np

from streaming_vlm_mlx.matches.people import Kit, Look, Rgb, pairs, random_look, shaded
from streaming_vlm_mlx.matches.tennis.court import HALF_LENGTH, Surface

RUN = 4.9
REACTION, SERVE_REACTION = 0.2, 0.4
REACH = 0.85
HOME_DEPTH = HALF_LENGTH + 0.7
NET_DEPTH = 2.9

Intent = str  # "in", "winner", "net" or "out"


@dataclass(frozen=True, slots=True)
class Skill:
    """Skills of a player, as chances between 0 and 1.

    Attributes:
        first_serve: a first serve is good.
        second_serve: a second serve is good.
        ace: a good first serve is aimed out of reach.
        net: a rally stroke goes into the net.
        out: a rally stroke lands out.
        winner: a rally stroke is aimed out of reach.
        approach: the player follows a stroke from inside the baseline to the net.
        left_handed: plays with the left hand.
    """

    first_serve: float
    second_serve: float
    ace: float
    net: float
    out: float
    winner: float
    approach: float
    left_handed: bool


def random_skill(rng: np.random.Generator) -> Skill:
    """Draw a player. Rare outcomes are more frequent than on tour, so that a minute shows several."""
    u = rng.uniform
    return Skill(
        first_serve=u(0.55, 0.78),
        second_serve=u(0.66, 0.9),
        ace=u(0.12, 0.36),
        net=u(0.06, 0.13),
        out=u(0.06, 0.13),
        winner=u(0.1, 0.22),
        approach=u(0.15, 0.6),
        left_handed=bool(rng.random() < 0.1),
    )


def rally_chances(skill: Skill, strokes: int, *, at_net: bool, passing: bool, smash: bool) -> dict[Intent, float]:
    """Return the chance of each ending of a stroke; the rest is ``in``. Chances grow in long rallies.

    Args:
        skill: of the hitter.
        strokes: strokes of the rally so far, including the serve.
        at_net: the hitter volleys.
        passing: the opponent stands at the net.
        smash: the stroke is a smash.
    """
    tired = 1.0 + 0.15 * max(0, strokes - 5)
    net, out, winner = skill.net * tired, skill.out * tired, skill.winner * tired
    if smash:
        net, out, winner = 0.09, 0.11, 0.7
    elif at_net:
        net, out, winner = net * 1.3, out * 1.3, 0.5
    elif passing:
        net, out, winner = net * 1.3, out * 1.3, winner * 1.9
    elif strokes == 1:
        net, out, winner = net * 1.2, out * 1.2, winner * 0.5
    return {"net": min(net, 0.3), "out": min(out, 0.3), "winner": min(winner, 0.7)}


def draw_intent(rng: np.random.Generator, chances: dict[Intent, float]) -> Intent:
    """Draw one ending; the remaining chance is ``in``."""
    draw = rng.random()
    for intent, chance in chances.items():
        if draw < chance:
            return intent
        draw -= chance
    return "in"


CODES = (
    *("ADA", "BRO", "CEL", "DAN", "ELM", "FOX", "GRE", "HAL", "IVO", "JON", "KAR", "LUN", "MAR"),
    *("NIL", "ODE", "PIM", "QUI", "ROS", "SAL", "TOR", "ULM", "VAN", "WES", "XAV", "YOR", "ZEL"),
)


@dataclass(frozen=True, slots=True)
class Cast:
    """Both players, in the order of the scoreboard's rows."""

    kits: tuple[Kit, Kit]
    looks: tuple[Look, Look]
    codes: tuple[str, str]
    skills: tuple[Skill, Skill]

    @property
    def names(self) -> tuple[str, str]:
        """The names of the kits."""
        return self.kits[0].name, self.kits[1].name


def random_cast(rng: np.random.Generator, surface: Surface) -> Cast:
    """Draw two players whose kits contrast with each other and with the court."""
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
