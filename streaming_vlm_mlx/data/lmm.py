"""The words of a training conversation, as StreamingVLM's ``LMMDataset`` puts them.

Trained checkpoints rely on its odd details: each commentary starts with a line feed, every second but the first has a
space behind its times, and a question stands in the user's text, its answer before the line feed.
"""

from collections.abc import Iterable

from streaming_vlm_mlx.data.annotations import Annotation
from streaming_vlm_mlx.data.record import Turn


def user_text(start: float, end: float, question: str = "", *, first: bool) -> str:
    """Return what stands before the video of the second from `start` to `end`."""
    return f"Time={start:.1f}-{end:.1f}s{'' if first else ' '}{question}"


def assistant_text(words: Iterable[str], answer: str = "") -> str:
    """Return an answer and the commentary made of `words`; none are a silent second."""
    return answer + "\n" + " ".join(("", *words, "..."))


def turns(annotation: Annotation, count: int) -> tuple[Turn, ...]:
    """Return the first `count` seconds of `annotation`.

    A word is said in the first second that it ends in or before; words that end later than the last second are left
    out. A question falls in the second that its end lies in; as in the original only the next one is looked at, so
    the second of two in the same second, and all behind it, are lost.
    """
    words, questions = annotation.words, annotation.questions
    made, said, asked = [], 0, 0
    for second in range(count):
        start, end = annotation.start + second, annotation.start + (second + 1)
        spoken = said
        while said < len(words) and words[said][1] <= end:
            said += 1
        question = answer = ""
        if asked < len(questions) and start < questions[asked][1] <= end:
            question, answer = questions[asked][2:]
            asked += 1
        user = user_text(start, end, question, first=not second)
        assistant = assistant_text([word for _, _, word in words[spoken:said]], answer)
        made.append(Turn(start, end, user, assistant, question, answer))
    return tuple(made)
