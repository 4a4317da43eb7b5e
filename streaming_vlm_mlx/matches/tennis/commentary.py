"""Commentary on a match: phrases, and when they are said.

In a phrase, ``{p}`` is the player, ``{stroke}`` the stroke and ``{way}`` its direction. The words that `lexicon` reads
as an ending or a score have no other use. Either all phrases of a kind name a player or none does: the wording varies,
but not whether a name is due, because a model's names are measured by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from streaming_vlm_mlx.eval.text_metrics import Word
from streaming_vlm_mlx.matches.speech import BREATH, LEAST_LAG, MOST_LAG, Utterance, Voice, sentence
from streaming_vlm_mlx.matches.tennis.court import end_name
from streaming_vlm_mlx.matches.tennis.lexicon import mentions
from streaming_vlm_mlx.matches.tennis.point import PREPARE, Point, Shot
from streaming_vlm_mlx.matches.tennis.rules import COUNT_WORDS, Score, call_points, ends_change
from streaming_vlm_mlx.matches.tennis.script import PointScore, Script

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
    """Return a sentence of one of `kinds` with its slots filled. Phrases with an empty slot are left out.

    Args:
        rng: draws the phrase.
        kinds: keys of `PHRASES`.
        slots: the values by slot; ``p`` is a kit.
    """
    choices = [t for kind in kinds for t in PHRASES[kind] if all(slots.get(s) for s in _slots(t))]
    text = choices[rng.integers(len(choices))]
    return sentence(text.format(**slots))


def _slots(template: str) -> list[str]:
    return [part.split("}")[0] for part in template.split("{")[1:]]


# Seconds after an ending: it is named by the first; officials signal a ball out after the second.
NAMED_BY, SHOWN_AFTER = 1.9, 0.65
# Seconds within which a game and its leader are said: the next point may begin with a fault.
GAME_SAID = 4.6
# The longest delay of a stroke: after it, the other player has struck.
STROKE_LATEST = 1.05
# The longest delay of an announced serve: the score comes first.
READY_LATEST = 2.3
# Strokes with the player's name; plain strokes follow each other too quickly for a name.
NAMED_STROKES = ("lob", "volley", "smash")
WAYS = {
    "cross-court": "cross-court",
    "down the line": "down the line",
    "middle": "through the middle",
    "wide": "to the corner",
    "body": "into the body",
    "T": "down the T",
}
MISSES = {"long": "long", "wide": "wide", "net": "into the net"}


def commentary(script: Script, rng: np.random.Generator) -> tuple[Word, ...]:
    """Return the commentary on `script`."""
    voice = Voice(rng, rng.uniform(3.1, 3.7))
    talker = Talker(script, rng)
    for utterance in (*_by_time(talker.due()), *talker.optional()):
        voice.say(utterance)
    return voice.words()


def _by_time(utterances: Sequence[Utterance]) -> list[Utterance]:
    return sorted(utterances, key=lambda c: c.time)


def _names(kinds: Sequence[str]) -> bool:
    """Whether phrases of `kinds` name a player."""
    return all("{p}" in text for kind in kinds for text in PHRASES[kind])


@dataclass(frozen=True)
class Talker:
    """Finds everything worth saying.

    Attributes:
        script: everything that happens.
        rng: draws phrases, and which kinds of strokes are left out.
    """

    script: Script
    rng: np.random.Generator

    def due(self) -> list[Utterance]:
        """Return an utterance for every fault, every ending and every score."""
        utterances = []
        for played in self.script.points:
            utterances += [self._fault(s) for s in played.point.shots[:1] if s.miss]
            utterances += [self._ending(played), self._score(played)]
        return utterances

    def optional(self) -> list[Utterance]:
        """Return the utterances that may be dropped, those with a name first."""
        named, plain = [], []
        for played in self.script.points:
            named += self._serving(played)
            for i, shot in enumerate(played.point.shots):
                kinds = self._kinds(played.point, i)
                if shot.stroke == "serve":
                    named += [self._served(shot)] if shot.result == "in" else []
                elif _names(kinds):
                    named.append(self._stroke(shot, kinds))
                elif shot.result == "in":
                    plain.append(self._stroke(shot, kinds))
        plain += [self._utterance(s.start, ("cheer",), {}, s.end + 1.0) for s in self.script.cheers]
        for time in self.script.changes:
            named.append(self._moving(time))
            plain.append(self._utterance(time, ("change",), {}, time + 4.0))
        return [*_by_time(named), *_by_time(plain)]

    def _utterance(
        self,
        time: float,
        kinds: Sequence[str],
        slots: Mapping[str, str],
        until: float = inf,
        lag: float = LEAST_LAG,
        ending: str = "",
    ) -> Utterance:
        """Return an utterance of `kinds`; with `ending`, the words must name that ending in time."""
        until = min(until, self.script.seconds)

        def named(words: Sequence[Word]) -> bool:
            return any(m.kind == ending and m.time - time <= NAMED_BY for m in mentions(words))

        return Utterance(time, lambda: phrase(self.rng, kinds, slots), until, lag, MOST_LAG, named if ending else None)

    def _name(self, player: int) -> str:
        return self.script.cast.names[player]

    def _slots(self, shot: Shot) -> dict[str, str]:
        return {
            "p": self._name(shot.player),
            "stroke": shot.stroke,
            "way": WAYS.get(shot.direction, ""),
            "miss": MISSES.get(shot.miss, ""),
        }

    def _fault(self, shot: Shot) -> Utterance:
        return self._utterance(shot.land_time, ("fault",), self._slots(shot), lag=SHOWN_AFTER, ending="fault")

    def _ending(self, played: PointScore) -> Utterance:
        """Return the utterance on the ending of a point; it leaves room for the score."""
        point = played.point
        last = point.shots[-1]
        kinds = [point.outcome]
        if point.outcome == "winner" and last.direction in ("cross-court", "down the line"):
            kinds.append("winner way")
        until = played.shown + MOST_LAG - 2 * BREATH
        return self._utterance(point.time, kinds, self._slots(last), until, SHOWN_AFTER, point.outcome)

    def _score(self, played: PointScore) -> Utterance:
        before, after = played.before, played.after
        name = self._name(played.point.winner)
        if before.games == after.games and before.sets == after.sets:
            return self._utterance(played.shown, ("call",), {"call": call_points(after, self.script.cast.names)})
        kind = "won" if before.sets == after.sets else "won match" if after.winner is not None else "won set"
        # The leader is named only while the players change ends, when there is time.
        games = self._games(after) if kind == "won" and ends_change(before, after) else ""

        def draw() -> str:
            text = phrase(self.rng, (kind,), {"p": name})
            return f"{text} {games}" if games else text

        return Utterance(played.shown, draw, min(played.shown + GAME_SAID, self.script.seconds))

    def _games(self, score: Score) -> str:
        """Return who leads in games, or that the games are level."""
        a, b = score.games
        if a == b:
            return phrase(self.rng, ("level",), {"games": f"{COUNT_WORDS[a]} {'game' if a == 1 else 'games'}"})
        high, low = max(a, b), min(a, b)
        text = f"{COUNT_WORDS[high]} {'game' if high == 1 else 'games'} to {COUNT_WORDS[low] if low else 'love'}"
        return phrase(self.rng, ("leads",), {"p": self._name(0 if a > b else 1), "games": text})

    def _serving(self, played: PointScore) -> list[Utterance]:
        """Return the utterances before the first and the second serve."""
        utterances = []
        for shot in (s for s in played.point.shots if s.stroke == "serve"):
            kind = "second" if shot.detail == "second" else "ready"
            slots = {"p": self._name(shot.player), "end": end_name(played.ends[shot.player])}
            utterance = self._utterance(shot.time - PREPARE, (kind,), slots, shot.time + 0.2)
            utterances.append(replace(utterance, latest=READY_LATEST))
        return utterances

    def _served(self, shot: Shot) -> Utterance:
        """Return the utterance on a good serve, which is only visible when it lands."""
        return replace(self._utterance(shot.land_time, ("serve",), self._slots(shot)), latest=STROKE_LATEST)

    def _stroke(self, shot: Shot, kinds: Sequence[str]) -> Utterance:
        return replace(self._utterance(shot.time, kinds, self._slots(shot), shot.time + 2.6), latest=STROKE_LATEST)

    def _kinds(self, point: Point, index: int) -> list[str]:
        shot = point.shots[index]
        if shot.stroke in NAMED_STROKES:
            return [shot.stroke]
        if shot.detail in ("approach", "pass"):
            return [shot.detail]
        if index and point.shots[index - 1].stroke == "serve" and self.rng.random() < 0.6:
            return ["return"]
        if index > 5 and self.rng.random() < 0.35:
            return ["rally"]
        return ["shot way", "shot way", "shot"] if shot.direction else ["shot"]

    def _moving(self, time: float) -> Utterance:
        """Return the utterance on who goes to the far end, during the walk."""
        player = next(p for p in (0, 1) if self.script.players[p].at(time)[1] < 0)
        return self._utterance(time + 2.5, ("moving",), {"p": self._name(player), "end": "far"}, time + 7.0)
