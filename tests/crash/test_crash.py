"""A few interruptions of each kind; ``python -m tests.crash`` tries many."""

from pathlib import Path

import pytest

from tests.crash.assets import Assets
from tests.crash.cases import KINDS, Cases
from tests.crash.kinds import Kind
from tests.crash.launcher import Launcher

# Cases a kind: each blow is tried, and changes of files as well as other events.
COUNTS = {
    "play": 4,
    "infer": 3,
    "export": 9,
    "convert": 3,
    "convert-ckpt": 3,
    "train": 1,
    "save": 2,
    "fetch": 2,
    "hangup": 2,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_interrupted_run_keeps_what_it_promised(
    kind: type[Kind], launcher: Launcher, assets: Assets, tmp_path: Path
) -> None:
    cases = Cases(kind, launcher, assets, tmp_path, seed=18, long=False)
    results = [cases.run(number) for number in range(COUNTS[kind.name])]
    assert not [f"{result.what}: {result.failure}" for result in results if result.failure]
    assert any(result.struck for result in results)
