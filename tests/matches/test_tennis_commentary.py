"""Nothing is said that is not so, and what must be said is said."""

from itertools import pairwise

import pytest

from streaming_vlm_mlx.eval.text_metrics import Word
from streaming_vlm_mlx.matches.match_truth import Event, Truth
from streaming_vlm_mlx.matches.people import KITS
from streaming_vlm_mlx.matches.speech import FASTEST, SLOWEST, timed
from streaming_vlm_mlx.matches.tennis.commentary import PHRASES
from streaming_vlm_mlx.matches.tennis.lexicon import ENDINGS, Mention, mentions
from streaming_vlm_mlx.matches.tennis.match import TennisMatch

SLOTS = {
    "p": "red",
    "stroke": "forehand",
    "way": "down the line",
    "end": "far",
    "call": "thirty fifteen",
    "games": "four games to two",
}


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    return [TennisMatch(seed, 60.0).truth(f"match_{seed:06d}.mp4") for seed in range(100, 125)]


def read(text: str) -> list[Mention]:
    return mentions(timed(text, 0.0, 3.0))


@pytest.mark.parametrize("miss", ["long", "wide"])
@pytest.mark.parametrize("kind", PHRASES)
def test_the_reader_hears_in_a_phrase_what_it_was_made_for(kind: str, miss: str) -> None:
    ending = kind.removesuffix(" way") if kind.removesuffix(" way") in ENDINGS else None
    for template in PHRASES[kind]:
        text = template.format(**{**SLOTS, "miss": miss, **({"games": "four games"} if kind == "level" else {})})
        heard = [m for m in read(text) if m.kind in ENDINGS]
        assert [m.kind for m in heard] == ([ending] if ending else [])
        if ending:
            assert heard[0].value == "red"
        scores = [m.value for m in read(text) if m.kind == "score"]
        expected = {"call": ["thirty fifteen"]}
        expected |= {"won": ["game red"], "won set": ["game and set red"], "won match": ["game set and match red"]}
        assert scores == expected.get(kind, [])


def test_the_reader_tells_sentences_and_times_apart() -> None:
    words = timed("Fault, into the net. Ace from pink. Advantage cyan.", 10.0, 3.0)
    found = mentions(words)
    assert [(m.kind, m.value) for m in found] == [
        ("fault", ""),
        ("ace", "pink"),
        ("player", "pink"),
        ("score", "advantage cyan"),
        ("player", "cyan"),
    ]
    starts = {w.text: w.start for w in words}
    assert [m.time for m in found] == [starts[t] for t in ("Fault,", "Ace", "pink.", "Advantage", "cyan.")]


def test_the_reader_takes_any_text() -> None:
    assert mentions([]) == []
    assert mentions([Word(0, 1, "..."), Word(1, 2, "!"), Word(2, 3, "the"), Word(3, 4, "player")]) == []


def test_every_player_named_is_one_of_the_two(truths: list[Truth]) -> None:
    named = [(t, m) for t in truths for m in mentions(t.words) if m.kind == "player"]
    assert len(named) > 250
    assert all(m.value in t.kits for t, m in named)
    assert {m.value for _, m in named} <= {k.name for k in KITS}


def test_every_ending_that_is_said_has_just_happened(truths: list[Truth]) -> None:
    for truth in truths:
        for m in mentions(truth.words):
            if m.kind in ENDINGS:
                just = [e for e in truth.events if e.kind == m.kind and 0.5 <= m.time - e.time <= 2.0]
                assert just, (truth.seed, m)
                assert m.value == just[-1].player


def test_every_ending_and_score_is_said(truths: list[Truth]) -> None:
    for truth in truths:
        said = mentions(truth.words)
        for event in truth.events:
            if event.time > truth.seconds - 4:
                continue
            if event.kind == "point":
                assert any(m.kind == "score" and m.value == event.call and 0 < m.time - event.time < 2.5 for m in said)
            if event.kind in ENDINGS:
                assert any(m.kind == event.kind and 0 < m.time - event.time < 2 for m in said), (truth.seed, event)


def test_no_score_is_called_but_the_one_on_the_board(truths: list[Truth]) -> None:
    for truth in truths:
        calls = [e for e in truth.events if e.kind == "point"]
        for m in mentions(truth.words):
            before = [e for e in calls if e.time < m.time]
            if m.kind == "score" and before:
                assert m.value == before[-1].call, (truth.seed, m)


def test_strokes_are_named_as_they_were_played(truths: list[Truth]) -> None:
    strokes = ("forehand", "backhand", "volley", "smash", "lob")
    checked = 0
    for truth in truths:
        for phrase in phrases(truth.words):
            text = " ".join(w.text for w in phrase).lower()
            stroke = next((s for s in strokes if s in text), None)
            if stroke is None:
                continue
            start = phrase[0].start
            recent = [e for e in truth.events if e.stroke and -0.01 <= start - e.time <= 1.52]
            assert any(e.stroke == stroke and (e.player in text or not named(text)) for e in recent), (truth.seed, text)
            for way in ("cross-court", "down the line"):
                if way in text:
                    assert any(e.direction == way and e.stroke == stroke for e in recent)
            checked += 1
    assert checked > 40


def phrases(words: tuple[Word, ...]) -> list[list[Word]]:
    groups: list[list[Word]] = []
    for word in words:
        if groups and word.start == groups[-1][-1].end:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def named(text: str) -> bool:
    return any(k.name in text.replace(".", "").replace(",", "").split() for k in KITS)


def test_phrases_come_half_a_second_to_one_and_a_half_behind_something(truths: list[Truth]) -> None:
    for truth in truths:
        marks = [e.time for e in truth.events]
        # A player makes ready a while before the serve, which is called once it has landed, and is glad or walks on a
        # while after an ending.
        marks += [e.time + off for e in truth.events if e.kind == "serve" for off in (-2.75, -1.9, 0.4)]
        marks += [e.time + 0.35 for e in truth.events if e.kind in ENDINGS]
        marks += [e.time + 2.5 for e in truth.events if e.kind == "change_of_ends"]
        for phrase in phrases(truth.words):
            lags = [phrase[0].start - t for t in marks]
            assert any(0.48 <= lag <= 1.52 for lag in lags) or phrase[0].start > truth.seconds - 5


def test_speech_has_a_speakable_pace_and_silence(truths: list[Truth]) -> None:
    for truth in truths:
        for phrase in phrases(truth.words):
            if len(phrase) > 1:
                assert SLOWEST * 0.95 <= len(phrase) / (phrase[-1].end - phrase[0].start) <= FASTEST * 1.05
        assert all(a.end <= b.start for a, b in pairwise(truth.words))
        spoken = {int(w.start) for w in truth.words}
        assert 0.1 < 1 - len(spoken) / truth.seconds < 0.6
        assert all(0 <= w.start < w.end <= truth.seconds for w in truth.words)


def test_the_grammar_has_variety(truths: list[Truth]) -> None:
    said = [" ".join(w.text for w in phrase) for truth in truths for phrase in phrases(truth.words)]
    assert len(set(said)) > 0.5 * len(said)


def test_events_carry_the_score_that_follows_them(truths: list[Truth]) -> None:
    for truth in truths:
        for event in truth.events:
            if event.kind == "point" and event.score:
                board = truth.board_at(event.time + 0.01)
                assert all(board.fields[f] == event.score[f] for f in ("points", "games", "sets"))
        assert {e.kind for e in truth.events} <= KINDS
        assert all(isinstance(e, Event) and 0 <= e.time < truth.seconds for e in truth.events)


KINDS = {*ENDINGS, "serve", "shot", "point", "game", "set", "match", "change_of_ends"}
