"""Phrases of a tennis commentator.

In a phrase ``{p}`` is the player, ``{q}`` the other one, ``{stroke}`` and ``{way}`` what and where. The words that
`lexicon` reads as the ending of a point or as a score are used for nothing else.
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
    "ready at": ("{p} serves at {call}", "{p} serving at {call}", "{call}, {p} to serve", "{call}, {p} serving"),
    "second": (
        *("second serve", "second serve now", "second serve for {p}", "{p} with a second serve"),
        *("{p} tries again", "second serve, {p}", "another serve for {p}", "one more serve for {p}"),
    ),
    "serve": (
        *("{p} serves", "serve from {p}", "good serve from {p}", "the serve is in", "{p} serves {way}"),
        *("{p} gets it in", "serve {way} from {p}", "{p} goes {way}"),
    ),
    "return": ("{p} returns", "return from {p}", "{p} gets it back", "{p} with the return", "{p} sends it back"),
    "shot": (
        *("{stroke} from {p}", "{p} with the {stroke}", "{p}, {stroke}", "{p} hits the {stroke}", "{stroke}, {p}"),
        *("a {stroke} from {p}", "{p} plays the {stroke}", "{p} on the {stroke}", "{p} swings the {stroke}"),
    ),
    "shot way": (
        *("{stroke} {way} from {p}", "{p}, {stroke} {way}", "{p} goes {way}", "{p} with the {stroke} {way}"),
        *("{p} plays it {way}", "{way} from {p}", "{p} sends it {way}", "{p} hits it {way}"),
    ),
    "approach": (
        *("{p} comes forward", "{p} moves in", "{p} follows it in", "{p} comes to the net"),
        *("in comes {p}", "{p} is moving in", "{p} charges forward"),
    ),
    "pass": ("{p} tries to pass", "{p} goes for the pass", "{p} tries to get past {q}"),
    "lob": ("{p} lobs", "a lob from {p}", "up goes the lob from {p}", "{p} puts it up", "lob from {p}"),
    "volley": ("{p} volleys", "volley from {p}", "{p} at the net", "{p} with the volley", "a volley from {p}"),
    "smash": ("smash from {p}", "{p} smashes", "{p} with the smash", "overhead from {p}", "{p} goes overhead"),
    "rally": (
        *("the rally goes on", "still going", "back and forth they go", "good rally this", "they keep it going"),
        *("what a rally", "neither gives in"),
    ),
    "ace": (
        *("ace from {p}", "{p} with the ace", "that's an ace from {p}", "an ace for {p}", "ace!", "{p} serves an ace"),
        *("it's an ace, {p}", "ace {way} from {p}", "an ace {way}", "{p} fires an ace", "{p} aces {q}"),
    ),
    "winner": (
        *("winner from {p}", "{p} with the winner", "that's a winner from {p}", "winner!", "a clean winner from {p}"),
        *("{p} hits the winner", "what a winner from {p}", "{stroke} winner from {p}", "a {stroke} winner, {p}"),
        *("a winner for {p}", "{p} finds the winner", "{p} hits a {stroke} winner"),
    ),
    "winner way": ("winner {way} from {p}", "{p} with a winner {way}", "a winner {way}, {p}", "{p}, winner {way}"),
    "net": (
        *("into the net from {p}", "{p} nets it", "{p} finds the net", "into the net", "{p} hits the net"),
        *("that's in the net from {p}", "{p} nets the {stroke}", "in the net, {p}", "netted by {p}"),
        *("the {stroke} from {p} is in the net", "{p} puts it into the net", "{p} catches the net"),
    ),
    "out": (
        *("out from {p}", "{p} hits it out", "that's out from {p}", "out!", "it's out, {p}", "the {stroke} is out"),
        *("{p} sends it {miss}", "{miss} from {p}", "that's {miss} from {p}", "{p} goes {miss}", "{miss}, {p}"),
        *("it's {miss} from {p}", "{p} hits it {miss}", "the {stroke} from {p} is {miss}", "just {miss} from {p}"),
    ),
    "fault": (
        *("fault", "fault from {p}", "a fault", "{p} faults", "fault, {miss}", "that's a fault", "fault, {p}"),
        *("first serve is a fault", "a fault from {p}", "{p} serves a fault", "it's a fault, {miss}"),
    ),
    "double_fault": (
        *("double fault", "double fault from {p}", "that's a double fault", "{p} double faults", "double fault, {p}"),
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
    "cheer": ("{p} raises a fist", "{p} likes that", "{p} is pleased", "{p} celebrates", "and {p} enjoys it"),
    "change": (
        *("they change ends", "the players change ends", "change of ends", "time to change ends"),
        *("the players swap sides", "and they change ends"),
    ),
    "moving": ("{p} goes to the {end} side", "{p} moves to the {end} end", "{p} heads for the {end} end"),
}


def phrase(rng: np.random.Generator, kinds: Sequence[str], slots: Mapping[str, str]) -> str:
    """Return a sentence of one of `kinds`, its slots filled; phrases whose slots are empty are left out.

    Args:
        rng: draws the phrase, and by what name a player goes.
        kinds: keys of `PHRASES`.
        slots: what is put in; ``p`` and ``q`` are kits.
    """
    choices = [t for kind in kinds for t in PHRASES[kind] if all(slots.get(s) for s in _slots(t))]
    text = choices[rng.integers(len(choices))]
    names = {k: _named(rng, v) if k in ("p", "q") else v for k, v in slots.items()}
    return sentence(text.format(**names))


def _slots(template: str) -> list[str]:
    return [part.split("}")[0] for part in template.split("{")[1:]]


def _named(rng: np.random.Generator, kit: str) -> str:
    return f"the player in {kit}" if rng.random() < 0.18 else kit
