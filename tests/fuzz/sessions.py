"""Damaged sessions and journals, through ``svm-tui export``."""

import random
from collections.abc import Callable
from typing import Any

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.sessions.journal import load_session
from tests.fuzz.case import Case, check
from tests.fuzz.mutations import TEXTS, dump, encode, mutate_bytes, mutate_text, mutate_values, odd_name
from tests.video.clips import make_clip


def run(case: Case) -> None:
    """Write a session or a journal, damaged, read it, and export it in a format."""
    rng = case.rng
    ending = rng.choice((".json", ".jsonl"))
    path = case.folder / odd_name(rng, ending)
    make = _bomb if rng.random() < 0.06 else _session if ending == ".json" else _journal
    path.write_bytes(make(rng, ending))
    (case.folder / "clip.mp4").write_bytes(case.base("clip.mp4", lambda made: make_clip(made, count=60, rate=10)))
    record = case.attempt(lambda: load_session(path))
    if record is not None:
        starts = [second.start for second in record.seconds]
        check(ending == ".json" or starts == sorted(set(starts)), "a journal's seconds are in order, each once")
    out = case.folder / rng.choice(("out.vtt", "out.srt", "out.txt", "out.json", "out.json", "out.mp4"))
    if case.run("export", path, "--out", out) != 0:
        check(not out.exists(), "what is refused is not written")
    elif out.suffix != ".mp4":
        _check_text(out.read_text(encoding="utf-8"))
    if out.name == "out.json" and out.exists():
        again = case.attempt(lambda: load_session(out))
        check(again == record, "an exported session is the session")


def _check_text(text: str) -> None:
    check(not any((char < " " and char != "\n") or "\u202a" <= char <= "\u202e" for char in text), "text is harmless")


def _second(rng: random.Random, number: int) -> Any:
    said = rng.choice(("a goal", "", "the ball", "🏀 <b>", rng.choice(TEXTS)))
    value = {
        "index": number,
        "start": float(number),
        "end": number + 1.0,
        "text": said,
        "tokens": 5,
        "cache_tokens": 90,
    }
    value["timings"] = {"vision_ms": 1.5, "prefill_ms": 2.0, "decode_ms": 3.0, "total_ms": 6.5}
    value["memory"] = rng.choice((None, {"active": 10, "process": 99}))
    return value | ({"query": "who?", "text": "nine\nand so on"} if rng.random() < 0.2 else {})


def _record(seconds: list[Any]) -> Any:
    settings = StreamConfig().to_dict()
    return {
        **{
            "version": 2,
            "created": "2026-01-01T10:00:00+00:00",
            "clip": "clip.mp4",
            "model": "m",
            "settings": settings,
        },
        **{
            "versions": {"mlx": "1"},
            "seconds": seconds,
            "skipped": [{"index": 9, "start": 9.0, "end": 10.0}],
            "takes": [],
            "bookmarks": [1.0, 3.0],
        },
        "failure": "",
    }


def _session(rng: random.Random, _: str) -> bytes:
    value = _record([_second(rng, number) for number in range(rng.choice((1, 4, 60)))])
    data = encode(dump(mutate_values(rng, value), ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1))))
    return mutate_bytes(rng, data) if rng.random() < 0.2 else data


def _journal(rng: random.Random, _: str) -> bytes:
    changes: list[Any] = [{"spoken": _second(rng, rng.randrange(9))} for _ in range(rng.choice((1, 4, 30)))]
    changes += [{"skipped": {"index": 3, "start": 3.0, "end": 4.0}}, {"settings": {"window": 4}}, {"failure": "gone"}]
    lines = [_record([]), *changes]
    at = rng.randrange(len(lines))
    lines[at] = mutate_values(rng, lines[at])
    text = "".join(dump(line) + "\n" for line in lines)
    text = mutate_text(rng, text) if rng.random() < 0.3 else text
    data = encode(text)
    return mutate_bytes(rng, data) if rng.random() < 0.2 else data


def _bomb(rng: random.Random, ending: str) -> bytes:
    size = rng.choice((1 << 20, 20 << 20, 60 << 20, 120 << 20))
    second = '{"index":0,"start":0.0,"end":1.0,"text":"a"}'
    head, count = '{"version":2,"clip":"clip.mp4","seconds":[', size // len(second)
    if ending == ".json":
        contents: dict[str, Callable[[], str]] = {
            "seconds": lambda: head + f"{second}," * count + second + "]}",
            "text": lambda: head + second.replace('"a"', '"' + "goal " * (size // 5) + '"') + "]}",
            "objects": lambda: head + "{}," * (size // 3) + "{}]}",
            "lists": lambda: head[:-1] + "[" + "[]," * (size // 3) + "[]]}",
            "settings": lambda: '{"version":2,"settings":{' + ",".join(f'"{n}":[]' for n in range(size // 14)) + "}}",
        }
    else:
        contents = {
            "spoken": lambda: '{"version":2}\n' + f'{{"spoken":{second}}}\n' * (size // 60),
            "skipped": lambda: (
                '{"version":2}\n'
                + "".join(f'{{"skipped":{{"index":{n},"start":{n},"end":{n + 1}}}}}\n' for n in range(size // 60))
            ),
            "settings": lambda: '{"version":2}\n' + '{"settings":{"window":4}}\n' * (size // 26),
            "empty lines": lambda: '{"version":2}\n' + "\n" * size,
            "objects": lambda: '{"version":2}\n' + "{}\n" * (size // 3),
            "one line": lambda: '{"version":2}\n{"settings":{"a":"' + "x" * size,
        }
    return encode(contents[rng.choice(sorted(contents))]())
