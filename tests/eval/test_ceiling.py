"""Commentary that a viewer who misses nothing would be measured by: it must be possible to be right."""

import numpy as np

from streaming_vlm_mlx.eval.measures import Play, judge_play
from streaming_vlm_mlx.eval.reference import Reference, said_words
from streaming_vlm_mlx.matches.tennis.commentary import commentary
from streaming_vlm_mlx.matches.tennis.match import TennisMatch
from streaming_vlm_mlx.matches.truth import stream
from streaming_vlm_mlx.stream.events import GenerationResult

SEEDS = range(200, 220)


def told_otherwise(seed: int) -> Play:
    """Hold a match's commentary against what the same grammar says of the same play with other draws."""
    match = TennisMatch(seed, 60.0, fps=2)
    words = commentary(match.script, stream(seed, "other words"))
    texts = (" ".join(w.text for w in words if s <= w.start < s + 1) for s in range(60))
    said = said_words(GenerationResult(s, float(s), s + 1.0, text) for s, text in enumerate(texts))
    return judge_play(Reference.of_truth(match.truth("a.mp4"), 0.0, 60.0), said, np.random.default_rng(0))


def test_who_sees_all_and_words_it_otherwise_is_nearly_always_right() -> None:
    plays = [told_otherwise(seed) for seed in SEEDS]
    names = sum(p.names.hits for p in plays) / sum(p.names.of for p in plays)
    scores = sum(p.scores.hits for p in plays) / sum(p.scores.of for p in plays)
    endings = [e for p in plays for e in p.endings.values()]
    assert names > 0.95
    assert scores > 0.97
    assert sum(e.heard for e in endings) / sum(e.asked for e in endings) > 0.97
    assert sum(e.right for e in endings) / sum(e.said for e in endings) > 0.97
