"""The controller's states, and the transitions between them."""

from enum import Enum, auto


class State(Enum):
    """What the model does, as far as the clip is concerned."""

    LOADING = auto()
    """The model is being loaded, and the clip waits for it."""

    LOADING_IN_BACKGROUND = auto()
    """The model is being loaded, and the clip plays without commentary."""

    GENERATING = auto()
    """The model generates one second after another."""

    SEEKING = auto()
    """The viewer went elsewhere: the generation under way is abandoned, and a new one is about to start there."""

    FINISHED = auto()
    """Every second up to the clip's end is generated or skipped."""

    FAILED = auto()
    """The model stopped with an error; the clip plays on, and the next seek tries again."""

    UNAVAILABLE = auto()
    """The model could not be loaded; the clip plays without commentary from here on."""


class Trigger(Enum):
    """What moves the controller from one state to another."""

    READY = auto()
    """The model is loaded."""

    PLAY_WITHOUT_MODEL = auto()
    """The viewer does not wait for the model."""

    SEEK = auto()
    """The viewer went to another second."""

    RESTARTED = auto()
    """The model is ready to generate from another second on."""

    END_REACHED = auto()
    """There are no more seconds to generate."""

    FAILURE = auto()
    """The model, or the reading of its seconds, stopped with an error."""


TRANSITIONS: dict[tuple[State, Trigger], State] = {
    (State.LOADING, Trigger.READY): State.GENERATING,
    (State.LOADING, Trigger.PLAY_WITHOUT_MODEL): State.LOADING_IN_BACKGROUND,
    (State.LOADING, Trigger.FAILURE): State.UNAVAILABLE,
    (State.LOADING_IN_BACKGROUND, Trigger.READY): State.GENERATING,
    (State.LOADING_IN_BACKGROUND, Trigger.SEEK): State.LOADING,
    (State.LOADING_IN_BACKGROUND, Trigger.FAILURE): State.UNAVAILABLE,
    (State.GENERATING, Trigger.SEEK): State.SEEKING,
    (State.GENERATING, Trigger.END_REACHED): State.FINISHED,
    (State.GENERATING, Trigger.FAILURE): State.FAILED,
    (State.SEEKING, Trigger.RESTARTED): State.GENERATING,
    (State.SEEKING, Trigger.FAILURE): State.FAILED,
    (State.FINISHED, Trigger.SEEK): State.SEEKING,
    (State.FAILED, Trigger.SEEK): State.SEEKING,
}
"""The state that follows a state and a trigger; a pair that is not listed leaves the state as it is."""


def next_state(state: State, trigger: Trigger) -> State:
    """Return the state that `trigger` leads to from `state`."""
    return TRANSITIONS.get((state, trigger), state)
