"""The controller's states: the whole table, and the controller in each state."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from streaming_vlm_mlx.errors import SvmError
from tests.player.controller_harness import ControllerHarness, StartController
from tests.player.fakes import Blank, Scripted, until
from tui.player.controller import Commentator
from tui.player.states import TRANSITIONS, State, Trigger, next_state

# The state that follows, one column for each trigger; a dot stays.
TRIGGERS = "READY PLAY_WITHOUT_MODEL SEEK RESTARTED END_REACHED FAILURE"
TABLE = """
LOADING                GENERATING  LOADING_IN_BACKGROUND  .         .           .         UNAVAILABLE
LOADING_IN_BACKGROUND  GENERATING  .                      LOADING   .           .         UNAVAILABLE
GENERATING             .           .                      SEEKING   .           FINISHED  FAILED
SEEKING                .           .                      .         GENERATING  .         FAILED
FINISHED               .           .                      SEEKING   .           .         .
FAILED                 .           .                      SEEKING   .           .         .
UNAVAILABLE            .           .                      .         .           .         .
"""
ROWS = {row.split()[0]: row.split()[1:] for row in TABLE.strip().splitlines()}
PAIRS = [
    (State[state], Trigger[trigger], State[state if after == "." else after])
    for state, row in ROWS.items()
    for trigger, after in zip(TRIGGERS.split(), row, strict=True)
]


@pytest.mark.parametrize(("state", "trigger", "after"), PAIRS)
def test_every_pair_leads_where_the_table_says(state: State, trigger: Trigger, after: State) -> None:
    assert next_state(state, trigger) is after


def test_the_table_covers_every_pair_and_lists_no_pair_that_stays() -> None:
    assert {(state, trigger) for state, trigger, _ in PAIRS} == {(s, t) for s in State for t in Trigger}
    assert all(state is not after for (state, _), after in TRANSITIONS.items())


def test_every_state_can_be_reached() -> None:
    reached = {State.LOADING}
    for _ in State:
        reached |= {next_state(state, trigger) for state in reached for trigger in Trigger}
    assert reached == set(State)


def unavailable() -> Commentator:
    raise SvmError("no MLX here; install it.")


async def stay(w: ControllerHarness, engine: Scripted) -> None:
    """Stay in the state that the session reaches by itself."""


async def play_without(w: ControllerHarness, engine: Scripted) -> None:
    w.controller.toggle()


async def seek_while_generating(w: ControllerHarness, engine: Scripted) -> None:
    await engine.until_spoken(0)
    engine.free.clear()
    w.pass_time(1)
    await engine.until_begun(1)
    w.controller.seek(9)


Bring = Callable[[ControllerHarness, Scripted], object]
WAYS = {
    State.LOADING: (False, Blank, stay),
    State.LOADING_IN_BACKGROUND: (False, Blank, play_without),
    State.GENERATING: (True, Blank, stay),
    State.SEEKING: (True, Blank, seek_while_generating),
    State.FINISHED: (True, lambda: Blank(1.0), stay),
    State.FAILED: (True, lambda: Blank(vanishes=0), stay),
    State.UNAVAILABLE: (True, Blank, stay),
}


def begin(state: State, engine: Scripted, start: StartController) -> AbstractAsyncContextManager[ControllerHarness]:
    loaded, seconds, _ = WAYS[state]
    if not loaded:
        engine.loaded.clear()
    return start(unavailable if state is State.UNAVAILABLE else engine, seconds(), pace="every")


@pytest.mark.parametrize("state", State)
async def test_the_controller_reaches_the_state_and_a_seek_leaves_it(
    state: State, start_controller: StartController
) -> None:
    engine = Scripted()
    async with begin(state, engine, start_controller) as w:
        await WAYS[state][2](w, engine)
        await until(lambda: w.controller.state is state)
        w.controller.seek(4)
        assert w.controller.state is next_state(state, Trigger.SEEK)


@pytest.mark.parametrize(
    ("state", "position"),
    [
        (State.LOADING, 0),
        (State.LOADING_IN_BACKGROUND, 5),
        (State.GENERATING, 2),
        (State.SEEKING, 10),
        (State.FINISHED, 1),
        (State.FAILED, 5),
        (State.UNAVAILABLE, 5),
    ],
)
async def test_the_clip_waits_for_a_model_that_is_there_or_on_its_way(
    state: State, position: float, start_controller: StartController
) -> None:
    engine = Scripted()
    async with begin(state, engine, start_controller) as w:
        await WAYS[state][2](w, engine)
        await until(lambda: w.controller.state is state)
        if state is State.GENERATING:
            await engine.until_spoken(0)
            engine.free.clear()
        w.pass_time(5)
        assert w.controller.playhead.position == position
