#!/usr/bin/env python
"""Copies a trained checkpoint into the package, in float16 and without the tokenizer, which the package has already."""

import argparse
import json
import shutil
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.atomic import replacing, replacing_folder
from streaming_vlm_mlx.checkpoint_files import CONFIG, WEIGHTS
from streaming_vlm_mlx.matches.tennis.questions import QUESTIONS as ASKED
from streaming_vlm_mlx.models.loading import load_checkpoint
from streaming_vlm_mlx.shipped import CHECKPOINT
from streaming_vlm_mlx.taught_questions import write_questions

COPIED = ("stream.yaml", "vocabulary.json", "loss.png")


def main() -> None:
    """Replace the shipped checkpoint with that of a training run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a folder that svm-tui train wrote")
    run = parser.parse_args().run
    readme = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    model = load_checkpoint(run, mx.float32).model
    model.set_dtype(mx.float16)
    config = {**json.loads((run / CONFIG).read_text(encoding="utf-8")), "torch_dtype": "float16"}
    with replacing_folder(CHECKPOINT) as folder:
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(readme, encoding="utf-8")
        write_questions(folder, _questions())
        mx.save_safetensors(str(folder / WEIGHTS), dict(model.named_arrays()), {"format": "mlx"})
        for name in COPIED:
            with replacing(folder / name) as part:
                shutil.copyfile(run / name, part)
    print(f"{CHECKPOINT}: {sum(f.stat().st_size for f in CHECKPOINT.iterdir()) / 1e6:.1f} MB")


def _questions() -> list[str]:
    """Return what the checkpoint is taught to answer, one wording of each question first."""
    wordings = [found for found, _ in ASKED.values()]
    return [first for first, *_ in wordings] + [other for _, *others in wordings for other in others]


if __name__ == "__main__":
    main()
