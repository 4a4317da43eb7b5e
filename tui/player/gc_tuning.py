"""Garbage collection during the start: none until there is something to see."""

import gc


def begin() -> None:
    """Stop collecting: while modules are imported it takes a tenth of the time and finds nothing."""
    gc.disable()


def end() -> None:
    """Collect again, without the objects that exist by now: they stay, and scanning them takes long."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
