"""When a feed is connected again, on times that are handed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.video.reconnect import FeedStatus, Reconnector, ReconnectRules

RULES = ReconnectRules()


@pytest.fixture
def feed() -> Reconnector:
    return Reconnector(RULES, 100.0)


def attempts(feed: Reconnector, now: float) -> list[tuple[float, int]]:
    """Let each attempt fail at once; return the seconds before each, with its number, until the feed has ended."""
    found = []
    while (decision := feed.decide(now)).action != "end":
        if decision.action == "wait":
            now += decision.timeout
            found.append((decision.timeout, feed.status(now).attempt))
        else:
            feed.lost(now, "Connection refused")
    return found


def test_a_feed_with_pictures_is_live_and_a_silent_one_says_for_how_long(feed: Reconnector) -> None:
    assert feed.status(102.9) == FeedStatus("live", pytest.approx(2.9))
    assert feed.status(107.0) == FeedStatus("silent", 7.0)
    feed.received(107.5)
    assert feed.status(108.0) == FeedStatus("live", 0.5)


def test_a_stall_is_waited_for_and_then_gives_the_connection_up(feed: Reconnector) -> None:
    decision = feed.decide(104.0)
    assert (decision.action, decision.timeout) == ("read", 6.0)
    assert feed.decide(109.9).action == "read"
    decision = feed.decide(110.0)
    assert (decision.action, decision.timeout) == ("wait", 1.0)
    assert feed.status(110.5) == FeedStatus("reconnecting", 10.5, 1, "no picture for 10 s")
    assert feed.decide(111.0).action == "connect"
    assert feed.decide(111.1).action == "read"


def test_the_wait_doubles_up_to_its_limit_and_attempts_end(feed: Reconnector) -> None:
    feed.lost(100.0, "Connection refused")
    found = attempts(feed, 100.0)
    assert [wait for wait, _ in found] == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30, 30]
    assert [number for _, number in found] == list(range(1, 13))
    assert feed.status(400.0) == FeedStatus("ended", 300.0, 0, "Connection refused")


def test_an_attempt_without_a_picture_fails_in_time(feed: Reconnector) -> None:
    feed.lost(100.0, "the server closed the connection")
    assert feed.decide(101.0).action == "connect"
    assert feed.decide(120.9).action == "read"
    decision = feed.decide(121.0)
    assert (decision.action, decision.timeout) == ("wait", 2.0)
    assert feed.status(121.0) == FeedStatus("reconnecting", 21.0, 2, "no picture within 20 s")


def test_a_steady_connection_makes_the_next_attempt_the_first_again(feed: Reconnector) -> None:
    for lasts, attempt in ((4.0, 2), (5.0, 1)):
        feed = Reconnector(RULES, 0.0)
        feed.lost(0.0, "reset")
        assert feed.decide(1.0).action == "connect"
        feed.received(2.0)
        assert feed.status(2.0).state == "live"
        feed.received(2.0 + lasts)
        feed.lost(2.0 + lasts, "reset")
        assert feed.status(2.0 + lasts).attempt == attempt


def test_a_final_loss_is_the_end(feed: Reconnector) -> None:
    feed.lost(101.0, "the feed is over", final=True)
    assert feed.decide(101.0).action == "end"
    assert feed.status(101.0).state == "ended"


@pytest.mark.parametrize("phase", ["connected", "waiting", "connecting", "ended"])
def test_a_retry_connects_at_once(feed: Reconnector, phase: str) -> None:
    if phase != "connected":
        feed.lost(100.0, "reset", final=phase == "ended")
    if phase == "connecting":
        assert feed.decide(101.0).action == "connect"
    feed.retry(101.5)
    assert feed.status(101.5).attempt == 1
    assert feed.decide(101.5).action == "connect"
    assert len(attempts(feed, 101.5)) == RULES.attempts - 1


EVENTS = st.sampled_from(["received", "lost", "final", "retry", "decide"])


@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 50.0))))
def test_whatever_happens_each_wait_has_an_end_and_a_limit(events: list[tuple[str, float]]) -> None:
    feed, now = Reconnector(RULES, 0.0), 0.0
    for what, passes in events:
        now += passes
        match what:
            case "received":
                feed.received(now)
            case "lost" | "final":
                feed.lost(now, "reset", what == "final")
            case "retry":
                feed.retry(now)
        decision, status = feed.decide(now), feed.status(now)
        assert 0.0 <= decision.timeout <= max(RULES.longest_wait, RULES.connecting)
        assert (decision.action == "end") == (status.state == "ended")
        assert status.attempt in (range(1, RULES.attempts + 1) if status.state == "reconnecting" else (0,))
        assert decision.action == "end" or decision.timeout > 0.0
