"""Phrases of a tennis commentator.

In a phrase ``{p}`` is the player, ``{stroke}`` and ``{way}`` what and where. The words that `lexicon` reads as the
ending of a point or as a score are used for nothing else. A kind names a player in each of its phrases or in none: what
is said varies, whether a name is due does not, or nobody could be measured by it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from streaming_vlm_mlx.matches.speech import sentence

PHRASES: dict[str, tuple[str, ...]] = {
    "ready": (
        *("{p} to serve", "{p} serving", "{p} to serve from the {end} end", "{p} is ready to serve"),
        *("{p} at the line", "{p} bounces the ball", "the serve is with {p}", "{p} steps up to serve"),
        *("it's {p} to serve", "{p} serving from the {end} end", "{p} will serve", "{p} has the ball"),
    ),
    "second": (
        *("second serve for {p}", "{p} with a second serve", "{p} tries again", "second serve, {p}"),
        *("{p}, second serve", "another serve for {p}", "one more serve for {p}", "{p} goes again"),
    ),
    "serve": (
        *("{p} serves", "serve from {p}", "good serve from {p}", "{p} with the serve", "{p} serves {way}"),
        *("{p} gets it in", "serve {way} from {p}", "{p} goes {way}"),
    ),
    "return": ("it comes back", "good return", "the return is in", "{stroke} return", "a {stroke} return", "returned"),
    "shot": ("{stroke}", "a {stroke}", "the {stroke}", "{stroke} now", "on the {stroke}", "and the {stroke}"),
    "shot way": ("{stroke} {way}", "a {stroke} {way}", "{way}", "the {stroke} {way}", "it goes {way}", "played {way}"),
    "approach": (
        *("{p} comes forward", "{p} moves in", "{p} follows it in", "{p} comes to the net"),
        *("in comes {p}", "{p} is moving in", "{p} charges forward"),
    ),
    "pass": ("{p} tries to pass", "{p} goes for the pass", "a passing shot from {p}"),
    "lob": ("{p} lobs", "a lob from {p}", "up goes the lob from {p}", "{p} puts it up", "lob from {p}"),
    "volley": ("{p} volleys", "volley from {p}", "{p} at the net", "{p} with the volley", "a volley from {p}"),
    "smash": ("smash from {p}", "{p} smashes", "{p} with the smash", "overhead from {p}", "{p} goes overhead"),
    "rally": (
        *("the rally goes on", "still going", "back and forth they go", "good rally this", "they keep it going"),
        *("what a rally", "neither gives in"),
    ),
    "ace": (
        *("ace from {p}", "{p} with the ace", "that's an ace from {p}", "an ace for {p}", "{p} serves an ace"),
        *("it's an ace, {p}", "ace {way} from {p}", "{p} fires an ace", "ace, {p}", "an ace {way} from {p}"),
    ),
    "winner": (
        *("winner from {p}", "{p} with the winner", "that's a winner from {p}", "a clean winner from {p}"),
        *("{p} hits the winner", "what a winner from {p}", "{stroke} winner from {p}", "a {stroke} winner, {p}"),
        *("a winner for {p}", "{p} finds the winner", "{p} hits a {stroke} winner"),
    ),
    "winner way": ("winner {way} from {p}", "{p} with a winner {way}", "a winner {way}, {p}", "{p}, winner {way}"),
    "net": (
        *("into the net from {p}", "{p} nets it", "{p} finds the net", "into the net, {p}", "{p} hits the net"),
        *("that's in the net from {p}", "{p} nets the {stroke}", "in the net, {p}", "netted by {p}"),
        *("the {stroke} from {p} is in the net", "{p} puts it into the net", "{p} catches the net"),
    ),
    "out": (
        *("out from {p}", "{p} hits it out", "that's out from {p}", "out, {p}", "it's out, {p}"),
        *("{p} sends it {miss}", "{miss} from {p}", "that's {miss} from {p}", "{p} goes {miss}", "{miss}, {p}"),
        *("it's {miss} from {p}", "{p} hits it {miss}", "the {stroke} from {p} is {miss}", "just {miss} from {p}"),
    ),
    "fault": (
        *("fault from {p}", "{p} faults", "fault, {p}", "a fault from {p}", "{p} serves a fault"),
        *("it's a fault from {p}", "{p} with a fault", "that's a fault, {p}", "first serve from {p} is a fault"),
    ),
    "double_fault": (
        *("double fault from {p}", "{p} double faults", "double fault, {p}"),
        *("a double fault from {p}", "it's a double fault, {p}", "{p} serves a double fault"),
    ),
    "call": (
        "{call}",
        "{call}",
        "{call}",
        "it's {call}",
        "and it's {call}",
        "that's {call}",
        "so {call}",
        "{call} now",
    ),
    "won": ("game, {p}", "game {p}", "game, {p}", "it's game, {p}", "and it's game, {p}"),
    "won set": ("game and set, {p}", "game and set {p}", "that's game and set, {p}"),
    "won match": ("game set and match, {p}", "game set and match {p}"),
    "leads": ("{p} leads {games}", "{p} is ahead {games}", "{p} in front {games}"),
    "level": ("{games} all", "it's {games} all", "level at {games} all"),
    "cheer": ("a fist goes up", "that feels good", "that was a good one", "the crowd enjoys it"),
    "change": (
        *("they change ends", "the players change ends", "change of ends", "time to change ends"),
        *("the players swap sides", "and they change ends"),
    ),
    "moving": ("{p} goes to the {end} side", "{p} moves to the {end} end", "{p} heads for the {end} end"),
}


def phrase(rng: np.random.Generator, kinds: Sequence[str], slots: Mapping[str, str]) -> str:
    """Return a sentence of one of `kinds`, its slots filled; phrases whose slots are empty are left out.

    Args:
        rng: draws the phrase.
        kinds: keys of `PHRASES`.
        slots: what is put in; ``p`` is a kit.
    """
    choices = [t for kind in kinds for t in PHRASES[kind] if all(slots.get(s) for s in _slots(t))]
    text = choices[rng.integers(len(choices))]
    return sentence(text.format(**slots))


def _slots(template: str) -> list[str]:
    return [part.split("}")[0] for part in template.split("{")[1:]]
