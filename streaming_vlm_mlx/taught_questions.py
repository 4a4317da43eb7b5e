"""The questions that a checkpoint was taught to answer, for the viewer who asks."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.checkpoint_files import QUESTIONS
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json, read_file

# Questions beside those known already that can still be a list of what may be asked.
MOST = 200

# Words that do not change what is asked for.
_EMPTY = {"a", "about", "an", "and", "are", "at", "current", "currently", "do", "does", "have", "in", "is", "it", "now"}
_EMPTY |= {"of", "on", "please", "right", "so", "the", "us"}
_WORD = re.compile(r"[^\W_]+")


def read_questions(folder: Path) -> tuple[str, ...]:
    """Return the questions that the checkpoint in `folder` was taught; empty where the folder does not say.

    Raises:
        SvmError: the file that says so is no list of texts.
    """
    path = folder / QUESTIONS
    if not path.exists():
        return ()
    try:
        values = parse_json(read_file(path))
    except ValueError as error:
        raise SvmError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise SvmError(f"{path} is no list of questions; delete it or copy the checkpoint again.")
    return tuple(values)


def write_questions(folder: Path, questions: Sequence[str]) -> None:
    """Write `questions` into the checkpoint in `folder`.

    Raises:
        SvmError: the folder cannot be written.
    """
    write_text(folder / QUESTIONS, json.dumps(list(questions), indent=1, ensure_ascii=False) + "\n")


def choose_questions(asked: Iterable[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the questions `known`, and those `asked` in training, the most frequent first.

    Empty where these are more than `MOST`: then they were asked freely, and others will be answered too.
    """
    counts = Counter(question.strip() for question in asked)
    new = [question for question, _ in counts.most_common() if question and question not in known]
    return (*known, *new) if len(new) <= MOST else ()


def is_taught(question: str, taught: Sequence[str]) -> bool:
    """Return whether `question` says no more than one of the questions `taught`, or none are named."""
    asked = _words(question)
    return not taught or (bool(asked) and any(asked <= _words(known) for known in taught))


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold().replace("'s", " is").replace("’s", " is"))) - _EMPTY
