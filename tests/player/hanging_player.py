"""Runs ``svm-tui`` with a player whose event loop waits for ever, as for a writer thread that has died."""

import signal
import sys
import threading
import tty

from tests.player.fakes import second_done
from tui import cli
from tui.player.app import PlayerApp

HANGING = "the player hangs"


def hang(app: PlayerApp) -> None:
    app.session.add(second_done(0, "he scores"))
    tty.setraw(0)
    print(HANGING, flush=True)
    threading.Event().wait()


def fail(app: PlayerApp) -> None:
    app.session.add(second_done(0, "he scores"))
    threading.Thread(target=threading.Event().wait).start()
    raise OSError(5, "Input/output error")


if __name__ == "__main__":
    how, *words = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    PlayerApp.run = {"hang": hang, "fail": fail}[how]  # type: ignore[method-assign]
    sys.argv[1:] = words
    cli.program()
