"""Signals that wait while a file is finished."""

import signal
import threading
from collections.abc import Iterator

import pytest

from tui.signals import signals_held


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Python's own handler of Ctrl-C, which the program that runs the tests may have replaced."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_the_end(number: signal.Signals) -> None:
    seen: list[int] = []
    signal.signal(number, lambda got, _: seen.append(got))
    with signals_held():
        signal.raise_signal(number)
        assert seen == []
    assert seen == [number]
    signal.raise_signal(number)
    assert seen == [number, number]


def test_the_second_signal_does_not_wait() -> None:
    done: list[int] = []

    def work() -> None:
        with signals_held():
            for number in range(3):
                done.append(number)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [0, 1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with signals_held():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_another_thread_changes_no_handler() -> None:
    found: list[object] = []

    def look() -> None:
        with signals_held():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
