"""What a model with a scratchpad says to itself in each second, held against what the second shows, fact by fact."""

from collections.abc import Iterable, Mapping

from streaming_vlm_mlx.validate.play import Share
from streaming_vlm_mlx.validate.reference import Reference, SaidSecond

# The facts of `matches.tennis.sight`, in its order.
FACTS = ("near", "far", "ball", "server", "score", "play")


def judge_notes(reference: Reference, seconds: Iterable[SaidSecond]) -> Mapping[str, Share]:
    """Return for each of `FACTS` in how many seconds the note has it right, of those in which something was noted.

    Nothing is returned where the truth does not know what is to be seen.
    """
    pairs = [
        (reference.sights[round(s.start)], s.noted) for s in seconds if s.noted and round(s.start) in reference.sights
    ]
    told = [(_facts(truth), _facts(noted)) for truth, noted in pairs]
    return {
        name: Share(sum(truth[i : i + 1] == noted[i : i + 1] for truth, noted in told), len(told))
        for i, name in enumerate(FACTS)
        if told
    }


def _facts(sentence: str) -> list[str]:
    return sentence.strip().rstrip(".").lower().split(", ")
