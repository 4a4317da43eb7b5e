"""Files that the interrupted commands work on, made once."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
import yaml

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
from streaming_vlm_mlx.sessions.mp4 import write_mp4
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.data.making import conversation, write_annotations
from tests.hub_server import Repo, SmallHub, serving
from tests.small import small_config, small_model, small_vocabulary
from tests.train.running import BASE, write_records
from tests.video.clips import make_clip

OWNER_NAME = "owner/name"
SECONDS, RATE = 3, 4
SAMPLES = 3000
TRAINING_STEPS = 4


@dataclass(frozen=True)
class Assets:
    """Files, by what they are for, and a hub that has the checkpoint."""

    ckpt: Path
    clip: Path
    long_clip: Path
    session: Path
    export: Path
    annotations: Path
    annotations_index: Path
    records: Path
    training: Path
    hub: SmallHub


@contextmanager
def making_assets(folder: Path) -> Iterator[Assets]:
    """Make everything in `folder`, and serve the hub while the block runs."""
    ckpt, training = folder / "checkpoint", folder / "training"
    _make_checkpoint(ckpt)
    clip = make_clip(folder / "clip.mp4", count=SECONDS * RATE, rate=RATE)
    # One frame a packet, and as many packets as a minute at 100 frames a second has.
    long_clip = make_clip(folder / "long.mp4", "mpeg4", count=6000, rate=100, size=(16, 16), options={})
    seconds = tuple(GenerationResult(n, float(n), n + 1.0, f"second {n}") for n in range(60))
    session = folder / "session.json"
    session.write_text(SessionRecord(clip="clip.mp4", seconds=seconds).to_json())
    export = folder / "export" / "clip.mp4"
    export.parent.mkdir()
    shutil.copy(clip, export)
    write_mp4(folder / "export.mp4", str(export), seconds[:4])
    annotations = folder / "games_with_seeks.jsonl"
    words = [[n / 4, n / 4 + 0.2, f"word{n}"] for n in range(8)]
    samples = (conversation("clip.mp4", 0, 2 + n % 5, words) for n in range(SAMPLES))
    write_annotations(annotations, samples, index=True)
    training.mkdir()
    records = write_records(training)
    config = BASE.merged(
        {
            "data": {"records": [records.name]},
            "validation": {"records": [records.name]},
            "schedule": {"steps": TRAINING_STEPS},
        }
    )
    (training / "run.yaml").write_text(yaml.safe_dump(config.to_dict()))
    files = {path.name: path.read_bytes() for path in ckpt.iterdir()}
    with serving(SmallHub(repos={OWNER_NAME: Repo(files)})) as hub:
        yield Assets(
            ckpt,
            clip,
            long_clip,
            session,
            folder / "export.mp4",
            annotations,
            folder / "games_seeks.jsonl",
            records,
            training,
            hub,
        )


def _make_checkpoint(folder: Path) -> None:
    """Save a small model with random weights that says a few words in every second."""
    tokenizer = Tokenizer.load()
    vocabulary = small_vocabulary(tokenizer, 400)
    stream = StreamConfig()
    stream = replace(stream, sampling=replace(stream.sampling, max_new_tokens=6))
    config = small_config(400)
    # Quantized weights come in groups of 32.
    model = small_model(replace(config, text_config=replace(config.text_config, intermediate_size=64)))
    mx.eval(model.parameters())
    save_checkpoint(folder, Checkpoint(model, tokenizer, vocabulary, stream))
