"""What is said about a script: endings of points and scores first, then whatever the silence has room for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from streaming_vlm_mlx.matches.speech import BREATH, LEAST_LAG, MOST_LAG, Cue, Voice
from streaming_vlm_mlx.matches.tennis.court import end_name
from streaming_vlm_mlx.matches.tennis.grammar import phrase
from streaming_vlm_mlx.matches.tennis.lexicon import mentions
from streaming_vlm_mlx.matches.tennis.point import PREPARE, Point, Shot
from streaming_vlm_mlx.matches.tennis.rules import COUNT_WORDS, Score, call_points
from streaming_vlm_mlx.matches.tennis.script import PointScore, Script
from streaming_vlm_mlx.matches.truth import Word

# An ending is named this long after it at the latest; officials need a moment to show what was out.
NAMED_BY, SHOWN_AFTER = 1.9, 0.65
# The score of a game, with who leads, is said by then: the next point may begin with a fault.
GAME_SAID = 4.6
# A stroke is old news sooner than this: the other player has struck by then.
STROKE_LATEST = 1.05
# What may be passed over is said more often than not, or nobody could tell when to speak.
SAID = 0.88
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
    """Return the words said over `script`."""
    voice = Voice(rng, rng.uniform(2.7, 3.6))
    talker = Talker(script, rng)
    for cue in sorted(talker.due(), key=lambda c: c.time):
        voice.say(cue)
    for cue in sorted(talker.optional(), key=lambda c: c.time):
        voice.say(cue)
    return voice.words()


@dataclass(frozen=True)
class Talker:
    """Finds what could be said.

    Attributes:
        script: all that happens.
        rng: draws phrases, and what is passed over.
    """

    script: Script
    rng: np.random.Generator

    def due(self) -> list[Cue]:
        """Return a cue for every fault, every ending and every score."""
        cues = []
        for played in self.script.points:
            cues += [self._fault(s) for s in played.point.shots[:1] if s.miss]
            cues += [self._ending(played), self._score(played)]
        return cues

    def optional(self) -> list[Cue]:
        """Return cues for what may be passed over."""
        cues = []
        for played in self.script.points:
            cues += self._serving(played)
            for i, shot in enumerate(played.point.shots):
                if shot.result == "in" and self.rng.random() < SAID:
                    cues.append(self._stroke(played.point, i))
        for span in self.script.cheers:
            if self.rng.random() < 0.3:
                cues.append(self._cue(span.start, ("cheer",), {"p": self._name(span.who)}, span.end + 1.0))
        for time in self.script.changes:
            cues.append(self._cue(time, ("change",), {}, time + 4.0))
            cues.append(self._moving(time))
        return cues

    def _cue(
        self,
        time: float,
        kinds: Sequence[str],
        slots: Mapping[str, str],
        until: float = inf,
        lag: float = LEAST_LAG,
        ending: str = "",
    ) -> Cue:
        """Return a cue for a phrase of `kinds`; with `ending`, that must be named in time."""
        until = min(until, self.script.seconds)

        def named(words: Sequence[Word]) -> bool:
            return any(m.kind == ending and m.time - time <= NAMED_BY for m in mentions(words))

        return Cue(time, lambda: phrase(self.rng, kinds, slots), until, lag, MOST_LAG, named if ending else None)

    def _name(self, player: int) -> str:
        return self.script.cast.names[player]

    def _slots(self, shot: Shot) -> dict[str, str]:
        return {
            "p": self._name(shot.player),
            "q": self._name(1 - shot.player),
            "stroke": shot.stroke,
            "way": WAYS.get(shot.direction, ""),
            "miss": MISSES.get(shot.miss, ""),
        }

    def _fault(self, shot: Shot) -> Cue:
        return self._cue(shot.land_time, ("fault",), self._slots(shot), lag=SHOWN_AFTER, ending="fault")

    def _ending(self, played: PointScore) -> Cue:
        """Return a cue for how the point ended, which leaves room for the score."""
        point = played.point
        last = point.shots[-1]
        kinds = [point.outcome]
        if point.outcome == "winner" and last.direction in ("cross-court", "down the line"):
            kinds.append("winner way")
        until = played.shown + MOST_LAG - 2 * BREATH
        return self._cue(point.time, kinds, self._slots(last), until, SHOWN_AFTER, point.outcome)

    def _score(self, played: PointScore) -> Cue:
        before, after = played.before, played.after
        name = self._name(played.point.winner)
        if before.games == after.games and before.sets == after.sets:
            return self._cue(played.shown, ("call",), {"call": call_points(after, self.script.cast.names)})
        kind = "won" if before.sets == after.sets else "won match" if after.winner is not None else "won set"
        games = self._games(after) if kind == "won" else ""

        def draw() -> str:
            text = phrase(self.rng, (kind,), {"p": name})
            return f"{text} {games}" if games and self.rng.random() < 0.5 else text

        return Cue(played.shown, draw, min(played.shown + GAME_SAID, self.script.seconds))

    def _games(self, score: Score) -> str:
        """Return who leads in games, or that they are level."""
        a, b = score.games
        if a == b:
            return phrase(self.rng, ("level",), {"games": f"{COUNT_WORDS[a]} {'game' if a == 1 else 'games'}"})
        high, low = max(a, b), min(a, b)
        text = f"{COUNT_WORDS[high]} {'game' if high == 1 else 'games'} to {COUNT_WORDS[low] if low else 'love'}"
        return phrase(self.rng, ("leads",), {"p": self._name(0 if a > b else 1), "games": text})

    def _serving(self, played: PointScore) -> list[Cue]:
        """Return what can be said before the first and the second serve."""
        cues = []
        score, shots = played.before, played.point.shots
        end = end_name(played.ends[score.server])
        for shot in (s for s in shots if s.stroke == "serve"):
            ready, slots = shot.time - PREPARE, {"p": self._name(shot.player), "end": end}
            if shot.detail == "second":
                if self.rng.random() < SAID:
                    cues.append(self._cue(ready + 0.3, ("second",), slots, shot.time))
            elif self.rng.random() < SAID:
                call = call_points(score, self.script.cast.names) if sum(score.points) else ""
                at = call and "advantage" not in call and self.rng.random() < 0.4
                cues.append(
                    self._cue(ready, ("ready at",) if at else ("ready",), {**slots, "call": call}, shot.time + 0.2)
                )
        return cues

    def _stroke(self, point: Point, index: int) -> Cue:
        shot = point.shots[index]
        cue = self._cue(shot.time, self._kinds(point, index), self._slots(shot), shot.time + 2.6)
        return replace(cue, latest=STROKE_LATEST)

    def _kinds(self, point: Point, index: int) -> list[str]:
        shot = point.shots[index]
        if shot.stroke in ("serve", "lob", "volley", "smash"):
            return [shot.stroke]
        if shot.detail in ("approach", "pass") and self.rng.random() < 0.75:
            return [shot.detail]
        if point.shots[index - 1].stroke == "serve" and self.rng.random() < 0.6:
            return ["return"]
        if index > 5 and self.rng.random() < 0.35:
            return ["rally"]
        return ["shot way", "shot way", "shot"] if shot.direction else ["shot"]

    def _moving(self, time: float) -> Cue:
        """Return who goes to the far end, said while they walk."""
        player = next(p for p in (0, 1) if self.script.players[p].at(time)[1] < 0)
        return self._cue(time + 2.5, ("moving",), {"p": self._name(player), "end": "far"}, time + 7.0)
