"""One machine of a run: ``python train_rank.py ASKED...``, a JSON object for each rank; prints what it saw."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from streaming_vlm_mlx import backend

# Before MLX is imported.
backend.prepare()

import mlx.core as mx

from streaming_vlm_mlx.distributed import join
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.train.metrics import Event, StepDone, Validated
from streaming_vlm_mlx.train.setup import train
from tests.train.running import BASE, Heard


def main() -> int:
    ranks = join(os.environ)
    asked = json.loads(sys.argv[1 + ranks.rank])
    heard = Heard(asked.get("stop"))
    callbacks = heard.callbacks()

    def report(event: Event) -> None:
        callbacks.report(event)
        if isinstance(event, StepDone) and event.step == asked.get("dies"):
            os._exit(9)

    try:
        config = BASE.merged(asked["settings"])
        progress = train(
            config, Path(asked["out"]), asked["resume"], mx.float32, 1, replace(callbacks, report=report), ranks
        )
    except SvmError as error:
        print(error, file=sys.stderr)
        return 2
    result = {
        "losses": heard.losses,
        "norms": [step.grad_norm for step in heard.steps],
        "kinds": [type(event).__name__ for event in heard.events],
        "validated": [event.losses for event in heard.of(Validated)],
        "step": progress.step,
        "best": progress.best_loss,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
