"""Damaged training records and the indexes beside them."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from streaming_vlm_mlx.data.dataset import SampleBuilder, SampleConfig, Windows
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from tests.fuzz.case import Case, check
from tests.fuzz.mutations import dump, encode, mutate_bytes, mutate_values, odd_name, odd_value
from tests.video.clips import make_clip
from tui.player.truth import read_truth

# Read once in a process.
TOKENIZERS: list[Tokenizer] = []


def run(case: Case) -> None:
    """Write records, damaged, and read them as training and ``svm-tui infer`` do."""
    rng = case.rng
    (case.folder / "clip.mp4").write_bytes(case.base("clip.mp4", lambda made: make_clip(made, count=60, rate=10)))
    path = case.folder / odd_name(rng, ".jsonl")
    lines = [_line(rng) for _ in range(rng.choice((1, 4, 30)))]
    path.write_bytes(_bomb(rng) if rng.random() < 0.06 else b"".join(lines))
    file = case.attempt(lambda: RecordFile.open(path))
    index = path.with_name(path.name + ".index.npz")
    if file is not None and index.exists() and rng.random() < 0.4:
        index.write_bytes(mutate_bytes(rng, index.read_bytes()))
        again = RecordFile.open(path)
        check(again.offsets.tolist() == file.offsets.tolist(), "a damaged index changes nothing")
    if file is not None:
        case.attempt(lambda: _read(rng, file))
    if rng.random() < 0.3:
        case.attempt(lambda: read_truth(path, str(case.folder / "clip.mp4")))
    if rng.random() < 0.1:
        # No such model: the record is read, and nothing is computed.
        case.run("infer", path, "--ckpt", case.folder / "absent", "--record", rng.choice((0, 0, 3, -1)))


def _read(rng: random.Random, file: RecordFile) -> None:
    check(len(file) == len(file.turns) == len(file.lines), "each record has a line")
    if not TOKENIZERS:
        TOKENIZERS.append(Tokenizer.load())
    builder = SampleBuilder(TOKENIZERS[0], SampleConfig())
    windows = Windows([file], rng.choice((1, 4, 60)), 1)
    for number in rng.sample(range(len(windows)), min(len(windows), 3)):
        record: StreamingRecord = windows[number]
        check(StreamingRecord.from_line(record.to_line()) == record, "a record comes back from its line")
        sample = builder.build(record)
        check(len(sample.input_ids) == len(sample.labels) == sample.position_ids.shape[1], "each token has a position")
        check(bool(np.all(sample.position_ids >= 0)), "positions count up from 0")


def _line(rng: random.Random) -> bytes:
    turns = [
        {
            "start": float(n),
            "end": n + 1.0,
            "user_text": f"Time={n:.1f}-{n + 1:.1f}s",
            "assistant_text": "\n a goal ...",
        }
        for n in range(rng.choice((1, 5)))
    ]
    turns[0] |= {"question": "who?", "answer": "nine", "vision_tokens": 12}
    value: Any = {"version": 1, "video": "clip.mp4", "video_start": 0.0, "video_end": 5.0, "width": 64, "height": 48}
    value |= {"fps": 2.0, "query": "Commentate", "previous": "before", "turns": turns}
    if rng.random() < 0.6:
        value = mutate_values(rng, value)
    data = encode(dump(value, ensure_ascii=rng.random() < 0.5)) + b"\n"
    return mutate_bytes(rng, data) if rng.random() < 0.15 else data


def _bomb(rng: random.Random) -> bytes:
    size = rng.choice((1 << 20, 20 << 20, 50 << 20))
    head = '{"version":1,"video":"clip.mp4","video_start":0,"video_end":9,"turns":['
    turn = '{"start":0,"end":1,"user_text":"","assistant_text":""}'
    contents: dict[str, Callable[[], str]] = {
        "turns": lambda: head + f"{turn}," * (size // len(turn)) + turn + "]}\n",
        "empty turns": lambda: head + "{}," * (size // 3) + "{}]}\n",
        "text": lambda: head + turn.replace('""', '"' + "goal " * (size // 5) + '"', 1) + "]}\n",
        "lines": lambda: "{}\n" * (size // 30),
        "empty lines": lambda: "\n" * size,
        "one line": lambda: "x" * size,
        "objects": lambda: "[" + "{}," * (size // 3) + "{}]\n",
        "odd": lambda: dump([odd_value(rng)] * 1000),
    }
    return encode(contents[rng.choice(sorted(contents))]())
