"""``python -m tests.fuzz``: many cases of each kind, with a summary and the way to repeat what failed."""

import argparse
import os
import sys
from collections import Counter, defaultdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.driver import Outcome, run_cases
from tests.fuzz.worker import KINDS


def main(argv: list[str] | None = None) -> int:
    """Run the cases that the command line names; return 1 where one failed."""
    args = _arguments(argv)
    if args.keep:
        Path(args.keep).mkdir(parents=True, exist_ok=True)
    kinds, console = args.kind or list(KINDS), Console(stderr=True)
    numbers = [args.case] if args.case is not None else range(args.cases)
    cases = [(kind, number) for kind in kinds for number in numbers]
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("cases", total=len(cases))

        def report(outcome: Outcome) -> None:
            outcomes[outcome.kind].append(outcome)
            bar.update(task, advance=1, description=outcome.kind)
            if outcome.failure:
                again = f"python -m tests.fuzz --kind {outcome.kind} --seed {args.seed} --case {outcome.number}"
                text = f"{outcome.kind} {outcome.number}: {outcome.failure!r}\n  {again}"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
                console.print(outcome.trace, markup=False, highlight=False, soft_wrap=True)
            elif args.case is not None:
                console.print(outcome, markup=False)

        run_cases(cases, args.seed, min(args.jobs, len(cases)), report, args.keep or "")
    Console().print(_summary(outcomes))
    if args.refusals:
        refused = Counter(outcome.refused[: args.refusals] for kind in outcomes.values() for outcome in kind)
        for text, count in refused.most_common():
            console.print(f"{count:5} {text!r}", markup=False, soft_wrap=True)
    return int(any(outcome.failure for kind in outcomes.values() for outcome in kind))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20, metavar="N", help="cases of each kind (default 20)")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be given several times")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all cases (default 0)")
    parser.add_argument("--case", type=int, metavar="N", help="only the case with this number")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: cores)")
    parser.add_argument("--keep", metavar="D", help="leave the files of the cases in this folder")
    parser.add_argument("--refusals", type=int, metavar="N", help="also list the first N characters of the errors")
    return parser.parse_args(argv)


def _summary(outcomes: dict[str, list[Outcome]]) -> Table:
    table = Table("kind", "cases", "failed", "refused", "seconds at most", "MB at most")
    for kind, found in outcomes.items():
        failed, refused = sum(bool(one.failure) for one in found), sum(bool(one.refused) for one in found)
        most = max(one.seconds for one in found), max(one.peak for one in found) >> 20
        table.add_row(kind, *map(str, (len(found), failed, refused)), f"{most[0]:.1f}", str(most[1]))
    return table


if __name__ == "__main__":
    sys.exit(main())
