"""Interrupts every command at random moments: ``python -m tests.crash --kills 100``."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streaming_vlm_mlx.backend import prepare

prepare()

from tests.crash.assets import making_assets  # noqa: E402
from tests.crash.cases import KINDS, Cases, Result  # noqa: E402
from tests.crash.launcher import Launcher  # noqa: E402


def main() -> int:
    """Run the cases; print each failure and a line a kind; return 1 if one failed."""
    parser = argparse.ArgumentParser("python -m tests.crash", description=__doc__)
    names = [kind.name for kind in KINDS]
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="cases a kind (default 100)")
    parser.add_argument("--kind", choices=names, action="append", help="kinds to try (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="chooses moments and variants (default 0)")
    parser.add_argument("--case", type=int, metavar="N", help="only this case")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default 0)")
    parser.add_argument("--within", type=float, metavar="S", help="most wall seconds from a blow to the end")
    args = parser.parse_args()
    numbers = [args.case] if args.case is not None else range(args.first, args.first + args.kills)
    root = Path(tempfile.mkdtemp(prefix="svm-crash-"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed = 0
    with Launcher() as launcher, making_assets(root) as assets, Progress(*columns, console=Console(stderr=True)) as bar:
        for kind in KINDS:
            if args.kind and kind.name not in args.kind:
                continue
            cases = Cases(kind, launcher, assets, root / "runs", args.seed, long=True)
            results = [cases.run(number) for number in bar.track(numbers, description=kind.name)]
            failed += _report(kind.name, results, args.within)
    if not failed:
        shutil.rmtree(root)
    return int(failed > 0)


def _report(name: str, results: list[Result], within: float | None) -> int:
    """Print what came of a kind, and return the number of failures."""
    failures = [(result.what, result.failure) for result in results if result.failure]
    failures += [(r.what, f"it took {r.seconds:.1f} s to end") for r in results if within and r.seconds > within]
    for what, failure in failures:
        print(f"{what}\n    {failure}")
    struck = sum(result.struck for result in results)
    slowest = max((result.seconds for result in results), default=0.0)
    print(f"{name}: {len(results)} cases, {struck} interrupted, {len(failures)} failures, slowest end {slowest:.2f} s")
    sys.stdout.flush()
    return len(failures)


if __name__ == "__main__":
    sys.exit(main())
