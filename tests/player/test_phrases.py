"""Phrases from the events of the controller."""

import pytest

from streaming_vlm_mlx.stream.events import Failed, SecondStarted, Skipped, TextPiece
from tests.player.fakes import second_done
from tui.player.controller import Seeked
from tui.player.phrases import Phrase, PhraseReader


def second(reader: PhraseReader, number: int, *pieces: str, question: str = "") -> list[tuple[int, str]]:
    """Read a second of `pieces`; return each phrase with the number of pieces that had come."""
    reader.read(SecondStarted(number, float(number), number + 1.0))
    found = []
    for count, piece in enumerate(pieces, 1):
        found += [(count, phrase.text) for phrase in reader.read(TextPiece(number, piece))]
    last = reader.read(second_done(number, "".join(pieces).strip(), question))
    return found + [(len(pieces) + 1, phrase.text) for phrase in last]


@pytest.mark.parametrize(
    ("pieces", "phrases"),
    [
        (["Red ", "to ", "serve"], [(4, "Red to serve")]),
        (
            ["He scores", "! ", "What a", " goal. And", " more"],
            [(2, "He scores!"), (4, "What a goal."), (6, "And more")],
        ),
        (["It is 40", ".", "5 km"], [(4, "It is 40.5 km")]),
        (['"Out!" ', "she says."], [(1, '"Out!"'), (3, "she says.")]),
        (["Two. Three. ", "Four"], [(1, "Two. Three."), (3, "Four")]),
        (["the answer\nand", " more"], [(1, "the answer"), (3, "and more")]),
        ([" ", " "], []),
        ([], []),
    ],
)
def test_phrases_are_whole(pieces: list[str], phrases: list[tuple[int, str]]) -> None:
    assert second(PhraseReader(), 3, *pieces) == phrases


def test_a_phrase_knows_its_second_and_its_line() -> None:
    reader = PhraseReader()
    reader.read(SecondStarted(4, 4.0, 4.5))
    assert reader.read(TextPiece(4, "yes\nhe does. ")) == [Phrase(4, 4.5, 0, "yes"), Phrase(4, 4.5, 1, "he does.")]


@pytest.mark.parametrize("event", [Seeked(9.0), Failed("gone")])
def test_what_was_begun_before_a_seek_is_dropped(event: Seeked | Failed) -> None:
    reader = PhraseReader()
    reader.read(SecondStarted(4, 4.0, 5.0))
    reader.read(TextPiece(4, "half"))
    assert reader.read(event) == []
    assert reader.read(TextPiece(4, " a phrase. ")) == []
    assert reader.read(second_done(4, "half a phrase.")) == []
    assert second(reader, 9, "new") == [(2, "new")]


def test_other_events_say_nothing() -> None:
    assert PhraseReader().read(Skipped(1, 1.0, 2.0)) == []
