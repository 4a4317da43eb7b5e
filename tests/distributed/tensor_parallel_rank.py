"""One rank of a tensor-parallel stream: ``python tensor_parallel_rank.py JSON``; rank 0 saves its logits."""

import json
import os
import sys
from pathlib import Path

from streaming_vlm_mlx import backend

# Before MLX is imported.
backend.prepare()

import mlx.core as mx
import numpy as np

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.distributed import join
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
from streaming_vlm_mlx.stream.distributed_runner import follow
from streaming_vlm_mlx.stream.generate import Session
from tests.distributed.streaming import play


def main() -> int:
    asked = json.loads(sys.argv[1])
    config = StreamConfig.from_dict(asked["config"])
    try:
        load = bundle_loader(Path(asked["folder"]), mx.float32, config, None, lambda: join(os.environ))
        _, bundle = load(lambda _: None)
        if bundle.ranks.is_main:
            session = Session(bundle, config)
            np.save(asked["out"], play(session, bundle, asked["seconds"], asked.get("dies")))
            session.close()
        else:
            follow(bundle.model, bundle.ranks)
    except SvmError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"held": sum(array.nbytes for _, array in bundle.model.named_arrays())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
