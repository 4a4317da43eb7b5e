"""One case of the fuzz suite: seeded random numbers, a folder of its own, and the limits that the product promises."""

import contextlib
import io
import random
import resource
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.memory import peak_memory

T = TypeVar("T")

# What a case may take: seconds of processor time, whatever else the machine does, and bytes of the whole process.
MOST_SECONDS, MOST_BYTES = 10.0, 1 << 30
# Characters of an error, without the paths in it.
LONGEST_ERROR = 2000


class BrokenPromiseError(Exception):
    """A case neither gave a result nor a named error, or took more than it may."""


@dataclass
class Case:
    """A case under way.

    Attributes:
        rng: draws the case; the same numbers at each run.
        folder: an empty folder.
        bases: a folder that all cases of a process share, for what they change.
        refusals: the named errors so far.
        seconds: processor time of the calls so far.
        results: how many calls gave a result.
        most_seconds: the most processor time.
    """

    rng: random.Random
    folder: Path
    bases: Path
    refusals: list[str] = field(default_factory=list)
    seconds: float = 0.0
    results: int = 0
    most_seconds: float = MOST_SECONDS

    def base(self, name: str, make: Callable[[Path], object]) -> bytes:
        """Return the content of the file `name` that `make` writes once in a process."""
        path = self.bases / name
        if not path.exists():
            make(path)
        return path.read_bytes()

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Return what `call` returns; None where it refuses its input with a named error.

        Raises:
            BrokenPromiseError: the error is not one short line, or the call took more than a case may.
        """
        forget_peak()
        begun = time.process_time()
        # What runs on is killed by the system; the parent process then knows why.
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(begun + self.most_seconds - self.seconds) + 2, hard))
        made = None
        try:
            made = call()
            self.results += 1
        except SvmError as error:
            self.refuse(str(error))
        finally:
            self.seconds += time.process_time() - begun
            resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
        self.check_limits()
        return made

    def run(self, *words: object) -> int | None:
        """Run a command of ``svm-tui`` and return its status.

        Raises:
            BrokenPromiseError: as `attempt`, or it ended as a defect, or wrote what a terminal acts on.
        """
        from tui import cli

        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()) as printed:
            status = self.attempt(lambda: cli.main([str(word) for word in words]))
        text = said.getvalue()
        if status not in (0, 2):
            raise BrokenPromiseError(f"{words[0]} ended with status {status}: {text}")
        if status == 2:
            self.results -= 1
            self.refuse(text.rstrip("\n").rpartition("\n")[2])
        if bad := [char for char in text + printed.getvalue() if _acts_on_a_terminal(char)]:
            raise BrokenPromiseError(f"{words[0]} writes {bad[0]!r} to the terminal: {text!r}")
        return status

    def refuse(self, text: str) -> None:
        """Enter the named error `text`.

        Raises:
            BrokenPromiseError: it is not one short line.
        """
        bare = text.replace(str(self.folder), "")
        if not bare.strip() or len(bare) > LONGEST_ERROR:
            raise BrokenPromiseError(f"an error of {len(bare)} characters: {bare[:200]!r}")
        self.refusals.append(text)

    def check_limits(self) -> None:
        """Check what the case took.

        Raises:
            BrokenPromiseError: it took more than a case may.
        """
        if self.seconds > self.most_seconds:
            raise BrokenPromiseError(f"took {self.seconds:.1f} s of processor time")
        if (peak := peak_memory()) > MOST_BYTES:
            raise BrokenPromiseError(f"took {peak >> 20} MB")


def check(held: bool, what: str) -> None:
    """Check an invariant of a result.

    Raises:
        BrokenPromiseError: it does not hold.
    """
    if not held:
        raise BrokenPromiseError(f"broken invariant: {what}")


def _acts_on_a_terminal(char: str) -> bool:
    category, direction = unicodedata.category(char), unicodedata.bidirectional(char)
    is_override = category == "Cf" and direction in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return is_override or (char != "\n" and category in ("Cc", "Cs", "Zl", "Zp"))


def forget_peak() -> None:
    """Begin to measure the peak of memory anew, where the system can: what made the case does not count."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
