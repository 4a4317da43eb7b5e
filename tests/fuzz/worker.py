"""The process that runs cases: a line with a kind, a seed and a number in, a line of JSON with the outcome out."""

import contextlib
import faulthandler
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from streaming_vlm_mlx.memory import peak_memory, process_memory
from tests.fuzz.case import Case, check

KINDS = ("clips", "subtitles", "annotations", "records", "checkpoints", "sessions", "settings")
# Address space beyond which an allocation fails, so that no case takes the machine's memory.
CEILING = 8 << 30
# Bytes that a process may hold between two cases.
FRESH = 500 << 20


def main() -> None:
    """Run the cases that stdin names, with the processor time that the command line gives each."""
    seconds = float(sys.argv[1])
    # What the product prints is not an outcome.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    # macOS has no such limit.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (CEILING, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    faulthandler.register(signal.SIGXCPU, chain=True)
    with tempfile.TemporaryDirectory(prefix="svm-fuzz-") as name:
        folder = Path(name)
        for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
            os.environ[variable] = str(folder / variable.lower())
        from streaming_vlm_mlx.backend import prepare

        prepare()
        for line in sys.stdin:
            kind, seed, number, keep = line.rstrip("\n").split("\t")
            print(json.dumps(_outcome(kind, int(seed), int(number), folder, keep, seconds)), file=out, flush=True)


def _outcome(kind: str, seed: int, number: int, folder: Path, keep: str, most: float) -> dict[str, object]:
    run: Callable[[Case], None] = importlib.import_module(f"tests.fuzz.{kind}").run
    bases = folder / kind
    bases.mkdir(exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=f"{kind}-{number}-", dir=keep or folder))
    case = Case(random.Random(f"{seed}/{kind}/{number}"), own, bases, most_seconds=most)
    failure = trace = ""
    try:
        run(case)
        check(bool(case.results or case.refusals), "the case tries something")
    except BaseException as error:  # noqa: BLE001 - a panic of a library is no Exception
        failure, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    if not keep:
        shutil.rmtree(own, ignore_errors=True)
    return {
        "failure": failure[:500],
        "trace": trace,
        "refused": case.refusals[-1].replace(str(own), "")[:300] if case.refusals else "",
        "results": case.results,
        "seconds": case.seconds,
        "peak": peak_memory(),
        "fresh": not failure and process_memory() < FRESH,
    }


if __name__ == "__main__":
    main()
