"""Damaged YAML: stream settings, training, benchmarks, and the player's options."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.config_io import FromDict, read_config
from streaming_vlm_mlx.eval.bench import read_bench_config
from streaming_vlm_mlx.train.config import TrainConfig
from tests.fuzz.case import Case, check
from tests.fuzz.mutations import NUMBERS, encode, mutate_bytes, mutate_text, mutate_values, odd_name
from tui.commands.options import read_options
from tui.commands.play import add_options

ROOT = Path(__file__).parents[2]
PLAYER = "pace: every\nckpt: run1\nfps: 2\npicture: true\ntheme: floodlight\nseed: 3\nstart: 1.5\n"
PLAYER += "keys: {play: x, find: ctrl+k}\n"
# Scalars that YAML's own conversions trip over.
SCALARS = (
    *(
        "2020-13-45",
        "!!int abc",
        "!!bool maybe",
        "!!float x",
        "!!binary '*'",
        "!!timestamp no",
        "!!set {a, b}",
        "!!omap [a]",
    ),
    *("!!python/object/apply:os.system [true]", "!!python/name:os.system", "!<tag:x> y", "0x" + "f" * 4000, "9" * 5000),
    *(
        "1:99:99",
        "0o9",
        "0b2",
        "1e999",
        ".inf",
        ".nan",
        "-.inf",
        "~",
        "null",
        "yes",
        "=",
        "<<",
        "*a",
        "&a [*a]",
        "? [a]",
    ),
    *("'", '"\\ud800"', '"\\x1b[31m"', "|\n  a", "[" * 5000, "{" * 3000, "- " * 3000, "2001-01-01", "[1, [2, [3]]]"),
)


def run(case: Case) -> None:
    """Write settings, damaged, and read them as what they are for."""
    rng = case.rng
    path = case.folder / odd_name(rng, ".yaml")
    kind = rng.choice(("stream", "train", "bench", "player"))
    path.write_bytes(_bomb(rng) if rng.random() < 0.06 else _content(rng, kind))
    readers: dict[str, Callable[[Path], Any]] = {
        "stream": partial(read_config, kind=StreamConfig),
        "train": partial(read_config, kind=TrainConfig),
        "bench": read_bench_config,
        "player": lambda path: read_options(path, add_options),
    }
    made = case.attempt(lambda: readers[kind](path))
    if isinstance(made, FromDict):
        check(type(made).from_dict(made.to_dict()) == made, "settings come back from their values")
    if kind == "stream" and rng.random() < 0.2:
        # No such model: the settings are read, and nothing is computed.
        case.run("infer", "--ckpt", case.folder / "absent", "--config", path)


def _content(rng: random.Random, kind: str) -> bytes:
    text = PLAYER
    if kind == "stream":
        text = yaml.safe_dump(StreamConfig().to_dict())
    elif kind != "player":
        text = rng.choice(sorted((ROOT / "configs" / kind).glob("*.yaml"))).read_text(encoding="utf-8")
    match rng.randrange(4):
        case 0:
            text = mutate_text(rng, text)
        case 1:
            text = yaml.dump(_plain(mutate_values(rng, yaml.safe_load(text))), allow_unicode=True)
        case 2:
            lines = text.split("\n")
            at = rng.randrange(len(lines))
            lines[at] = lines[at].partition(":")[0] + ": " + rng.choice((*SCALARS, str(rng.choice(NUMBERS))))
            text = "\n".join(lines)
        case _:
            return mutate_bytes(rng, encode(text))
    return encode(text)


def _plain(value: Any) -> Any:
    """Return `value` without the numbers that YAML's writer refuses."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, str) else value


def _bomb(rng: random.Random) -> bytes:
    size = rng.choice((900_000, 1 << 20, 50 << 20))
    contents: dict[str, Callable[[], str]] = {
        "aliases": lambda: (
            "a0: &a0 [x]\n"
            + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(rng.choice((9, 200))))
        ),
        "merges": lambda: (
            "a0: &a0 {x: 1}\n"
            + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(12))
        ),
        "list": lambda: "a: [" + "1, " * (size // 3) + "1]",
        "keys": lambda: "".join(f"k{n}: 1\n" for n in range(size // 12)),
        "text": lambda: "query: " + "x" * size,
        "flows": lambda: "a: " + "[" * 900 + "]" * 900,
        "anchors": lambda: "".join(f"k{n}: &a{n} 1\n" for n in range(size // 16)),
        "comments": lambda: "# x\n" * (size // 4),
        "documents": lambda: "--- 1\n" * (size // 6),
        "indents": lambda: "".join(" " * n + "a:\n" for n in range(1200)),
        "quotes": lambda: 'query: "' + "\\x41" * (size // 4) + '"',
    }
    return encode(contents[rng.choice(sorted(contents))]())
