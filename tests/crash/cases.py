"""A case: one run of a kind, interrupted at a moment that a seed chooses, then checked and resumed."""

import random
import shutil
import traceback
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.assets import Assets
from tests.crash.export_kind import Export
from tests.crash.interrupting import Blow, Moment, Outcome, run
from tests.crash.kinds import Clean, Convert, ConvertCheckpoint, Fetch, Infer, Kind, Train, files_in
from tests.crash.launcher import Launcher
from tests.crash.player_kinds import Hangup, Play, Save

KINDS: Sequence[type[Kind]] = (Play, Infer, Export, Convert, ConvertCheckpoint, Train, Save, Fetch, Hangup)


@dataclass(frozen=True)
class Result:
    """A case that was tried.

    Attributes:
        what: the kind, the case, the blow and its moment.
        struck: whether the run was interrupted before its end.
        seconds: wall seconds from the blow to the end.
        failure: what was promised and not there; empty if all was.
    """

    what: str
    struck: bool
    seconds: float
    failure: str = ""


class Cases:
    """The cases of one kind."""

    def __init__(self, kind: type[Kind], launcher: Launcher, assets: Assets, root: Path, seed: int, long: bool) -> None:
        """Prepare cases in folders below `root`; `long` ones are interrupted at any time, others at an event."""
        self._kind, self._launcher, self._root, self._seed, self._long = kind(assets), launcher, root, seed, long
        self._clean: dict[str, Clean] = {}

    def run(self, number: int) -> Result:
        """Try case `number`; its folder stays if it fails."""
        kind = self._kind
        chance = random.Random(f"{self._seed} {kind.name} {number}")
        variants = kind.variants if self._long else kind.variants[: kind.short]
        variant, blow = chance.choice(variants), kind.blows[number % len(kind.blows)]
        clean = self._clean_run(variant)
        moment = self._choose(chance, clean.outcome, blow)
        folder = self._root / f"{kind.name}-{number}"
        folder.mkdir(parents=True)
        what = f"{kind.name} {variant} --case {number} --seed {self._seed}: {blow} at {moment} in {folder}"
        outcome = Outcome()
        try:
            outcome = run(self._launcher, kind.lay_out(folder, variant), moment, blow)
            kind.check(folder, outcome, blow, clean, variant)
            self._resume(folder, variant, clean)
        except Exception as error:  # noqa: BLE001 - a file that cannot be read is a failure of what wrote it
            line = traceback.extract_tb(error.__traceback__)[-1].line
            return Result(what, outcome.struck, outcome.seconds, f"{type(error).__name__}: {error} ({line})")
        shutil.rmtree(folder)
        return Result(what, outcome.struck, outcome.seconds)

    def _clean_run(self, variant: str) -> Clean:
        """Return what the command does when nobody interrupts it."""
        if variant not in self._clean:
            folder = self._root / f"{self._kind.name}-clean-{len(self._clean)}"
            folder.mkdir(parents=True)
            outcome = run(self._launcher, self._kind.lay_out(folder, variant))
            if outcome.ended.status:
                raise AssertionError(f"{self._kind.name} fails without being interrupted: {outcome.err.decode()}")
            self._clean[variant] = Clean(outcome, files_in(folder))
            shutil.rmtree(folder)
        return self._clean[variant]

    def _choose(self, chance: random.Random, clean: Outcome, blow: Blow) -> Moment:
        """Return a moment of a run like `clean`: at a change of a file, or, in a long run, also at any time."""
        is_signal = blow.startswith("SIG")
        if is_signal and clean.changes and chance.random() < 0.5:
            return Moment(chance.randint(1, clean.changes), inside=True)
        times = [0.0, *clean.times]
        if not self._long:
            return Moment(chance.randrange(len(times) - 1))
        # Half of them at any event, half at any time.
        if chance.random() < 0.5:
            number = chance.randrange(len(times) - 1)
            delay = chance.uniform(0.0, times[number + 1] - times[number])
        else:
            at = chance.uniform(0.0, times[-1])
            number = max(bisect_left(times, at) - 1, 0)
            delay = at - times[number]
        if blow == "hangup" and chance.random() < 0.3:
            return Moment(number, chance.uniform(0.0, 1.0), is_deaf=True)
        return Moment(number, delay)

    def _resume(self, folder: Path, variant: str, clean: Clean) -> None:
        """Finish the work as a user would, and check it."""
        outcome = None
        for command in self._kind.resume(folder, variant):
            outcome = run(self._launcher, command)
            if outcome.ended.status == 0:
                break
        if outcome is not None:
            said = outcome.err.decode("utf-8", "replace")
            assert outcome.ended.status == 0, f"it does not resume: status {outcome.ended.status}: {said[-500:]}"
            self._kind.check_resumed(folder, outcome, clean, variant)
