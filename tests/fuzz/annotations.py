"""Damaged annotation files of StreamingVLM and LiveCC, and their indexes, through ``svm-tui convert``."""

import json
import random
from collections.abc import Callable

from streaming_vlm_mlx.data.livecc_annotations import Annotation, AnnotationFile
from streaming_vlm_mlx.data.records import StreamingRecord
from tests.data.making import conversation
from tests.fuzz.case import Case, check
from tests.fuzz.mutations import dump, encode, mutate_bytes, mutate_text, mutate_values, odd_name, odd_value
from tests.video.clips import make_clip


def run(case: Case) -> None:
    """Write annotations of a clip, damaged, and convert them."""
    rng = case.rng
    (case.folder / "clip.mp4").write_bytes(case.base("clip.mp4", lambda made: make_clip(made, count=60, rate=10)))
    path = case.folder / odd_name(rng, rng.choice((".jsonl", "_with_seeks.jsonl")))
    if rng.random() < 0.06:
        path.write_bytes(_bomb(rng))
    else:
        _write(case, [_line(rng) for _ in range(rng.choice((1, 3, 40)))], path.name)
    file = case.attempt(lambda: AnnotationFile.open(path))
    if file is not None:
        check(len(file.offsets) == len(file.numbers), "each sample has a line")
        for line in file.lines(file.offsets.argsort()[:3]):
            case.attempt(lambda line=line: Annotation.from_line(line))  # type: ignore[misc]
    out = case.folder / "out.jsonl"
    options = [word for word in ("--vision-tokens", "--split=valid", "--every=2") if rng.random() < 0.2]
    if case.run("convert", path, "--out", out, *options) == 0:
        for line in out.read_bytes().splitlines():
            check(bool(StreamingRecord.from_line(line).turns), "a record that was written can be read")


def _line(rng: random.Random) -> bytes:
    words = [[0.3 * n, 0.3 * n + 0.2, rng.choice(("goal", " shot", "é", "🏀"))] for n in range(rng.choice((1, 12)))]
    questions = [[1.0, 2.0, "who?", "number 9"]] if rng.random() < 0.5 else None
    value = conversation("clip.mp4", 0.0, rng.choice((3.0, 6.0, 600.0)), words, questions, "before")
    if rng.random() < 0.7:
        value = mutate_values(rng, value)
    data = encode(dump(value, ensure_ascii=rng.random() < 0.5))
    return mutate_bytes(rng, data) if rng.random() < 0.15 else data


def _write(case: Case, lines: list[bytes], name: str) -> None:
    """Write the file, and an index beside it or in its last line in some cases, which may be damaged."""
    rng, path = case.rng, case.folder / name
    data = b"".join(line + b"\n" for line in lines)
    offsets, at = [], 0
    for line in lines:
        offsets.append(at)
        at += len(line) + 1
    index = json.dumps(offsets)
    if rng.random() < 0.5:
        index = rng.choice((mutate_text(rng, index), json.dumps(offsets[::-1]), dump(odd_value(rng)), "[" + "1," * 999))
    match rng.randrange(3):
        case 0:
            beside = name.removesuffix(".jsonl").replace("_with_seeks", "") + "_seeks.jsonl"
            (case.folder / beside).write_bytes(encode(index))
        case 1:
            data += encode(index)
        case _:
            pass
    path.write_bytes(data)


def _bomb(rng: random.Random) -> bytes:
    """Return a large file of few, of many, or of empty lines."""
    size = rng.choice((1 << 20, 20 << 20, 50 << 20))
    head = '[{"role":"user","content":[{"video":"clip.mp4","video_start":0,"video_end":9},{}]},'
    contents: dict[str, Callable[[], bytes]] = {
        "empty lines": lambda: b"\n" * size,
        "short lines": lambda: b"{}\n" * (size // 30),
        "spaces": lambda: b" " * size,
        "one line": lambda: b"x" * size,
        "lists": lambda: b"[" + b"[]," * (size // 3) + b"[]]",
        "offsets": lambda: b"[" + b"0," * (size // 2) + b"0]",
        "words": lambda: (
            head + '{"role":"assistant","content":[{"text_stream":[' + '[0,1,"a"],' * (size // 10) + '[1,2,"b"]]}]}]\n'
        ).encode(),
        "numbers": lambda: b"9" * size,
    }
    return contents[rng.choice(sorted(contents))]()
