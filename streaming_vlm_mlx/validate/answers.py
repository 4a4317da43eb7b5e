"""What a model answered a viewer in a simulated match, held against what the second shows."""

from collections.abc import Iterable, Mapping

from streaming_vlm_mlx.matches.tennis.questions import ASKED
from streaming_vlm_mlx.matches.truth import Question
from streaming_vlm_mlx.validate.play import Share
from streaming_vlm_mlx.validate.reference import SaidSecond

# What each wording asks for, by the names of `matches.tennis.questions`.
KINDS = {wording: kind for kind, (wordings, _) in ASKED.items() for wording in wordings}


def judge_answers(questions: Iterable[Question], seconds: Iterable[SaidSecond]) -> Mapping[str, Share]:
    """Return by kind of question how many of `questions` were answered with the very words of the truth.

    A question in a second that was not spoken counts as answered wrongly.
    """
    answers = {round(second.start): second.answer for second in seconds}
    shares: dict[str, Share] = {}
    for start, _, wording, truth in questions:
        share = shares.get(KINDS[wording], Share(0, 0))
        right = _plain(answers.get(int(start), "")) == _plain(truth)
        shares[KINDS[wording]] = Share(share.hits + right, share.of + 1)
    return dict(sorted(shares.items()))


def _plain(sentence: str) -> str:
    return sentence.strip().rstrip(".").lower()
