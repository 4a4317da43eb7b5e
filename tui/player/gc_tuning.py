"""A quick start: what the interpreter may leave until there is something to see."""

import gc


def begin() -> None:
    """Collect no garbage from now on: while modules are imported it costs a tenth of the time, and finds none."""
    gc.disable()


def end() -> None:
    """Collect garbage again, but leave out all that is there by now: it stays, and looking through it takes long."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
