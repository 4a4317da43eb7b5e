"""Damages to bytes, text and JSON values, drawn from seeded random numbers."""

import json
import random
from collections.abc import Iterator
from typing import Any

# Numbers at the edges of what Python, NumPy, MLX and C hold.
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 255, 1000, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**12),
    *(10**22, 10**100, 0.5, -0.5, 1e-320, 1e-30, 0.1 + 0.2, 1e9, 1e16, 1e23, 1e300, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf")),
)
# What a terminal, a subtitle file, a path or a decoder may trip over.
TEXTS = (
    *("", " ", "\0", "\x1b[31mred\x1b[0m", "\x9b2J", "\a", "\u202egnp.exe", "\u2028", "\ud800", "\ufeff", "e\u0301"),
    *("🏀" * 3, "<b>", "{\\an8}", "-->", "&#0;", "&#99999999999;", "%s%n", "../../../etc/passwd", "/dev/zero"),
    *(
        "http://127.0.0.1:9/x",
        "http://[",
        "lavfi:testsrc",
        "nan",
        "null",
        "2020-13-45",
        "a" * 300,
        "x" * 50_000,
        "\n\n",
        "\r",
        "\t",
    ),
)
# Written as they are: what Python's own writer refuses or folds.
_RAW = {
    "@deep@": "[" * 100_000 + "]" * 100_000,
    "@deep-object@": '{"a":' * 30_000 + "1" + "}" * 30_000,
    "@digits@": "9" * 5000,
    "@many-digits@": "9" * 200_000,
    "@over@": "1e999",
    "@tiny@": "1e-999",
    "@fraction@": "0." + "3" * 50_000,
    "@twice@": '{"a":1,"a":[2]}',
    "@surrogate@": '"\\ud83d"',
}


def odd_value(rng: random.Random) -> Any:
    """Return a value that no file should hold where it stands."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(NUMBERS)
    if kind < 0.7:
        return rng.choice(TEXTS)
    if kind < 0.8:
        return rng.choice(sorted(_RAW))
    simple: list[Any] = [None, True, False, [], {}, [[]], {"": None}, [None], [1, 2], ["a"], {"a": {"b": [1]}}]
    return rng.choice([*simple, [0] * 3000, {str(n): n for n in range(500)}, [[0.0, 1.0, "x"]] * 500])


def odd_name(rng: random.Random, ending: str) -> str:
    """Return a file name: in most cases a plain one, in others one that is hard to print or to open."""
    if rng.random() < 0.9:
        return f"file{ending}"
    names = (
        "\x1b[31mred",
        "\a\u202e",
        "a b",
        "-o",
        "é" * 60,
        "x" * 200,
        ":",
        "lavfi:x",
        "%d",
        "a\nb",
        "\udcff",
        "~",
        "#",
    )
    return rng.choice(names) + ending


def mutate_bytes(rng: random.Random, data: bytes, most: int = 12) -> bytes:
    """Return `data` with bytes changed, cut, repeated, moved or overwritten."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, most))):
        if not changed:
            break
        at, length = rng.randrange(len(changed)), min(rng.choice((1, 2, 4, 16, 200)), len(changed))
        match rng.randrange(8):
            case 0 | 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, ord("9"), ord('"'), ord("\n")))
            case 3:
                changed[at : at + length] = rng.randbytes(length)
            case 4:
                del changed[at : at + length]
            case 5:
                changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 50))
            case 6:
                changed[at : at + length] = bytes([rng.choice((0, 0xFF))]) * length
            case _:
                del changed[at if rng.random() < 0.5 else len(changed) - min(at, 40) :]
    return bytes(changed)


def mutate_text(rng: random.Random, text: str) -> str:
    """Return `text` with odd strings in it, lines moved, left out and repeated."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines.insert(at, rng.choice(TEXTS))
            case 1:
                place = rng.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + rng.choice(TEXTS) + lines[at][place:]
            case 2:
                lines[at] = ""
            case 3:
                lines[at:at] = lines[at : at + 3] * rng.choice((1, 100))
            case 4:
                lines[at] = "".join(
                    rng.choice(("9", str(rng.choice(NUMBERS)))) if c.isdigit() else c for c in lines[at]
                )
            case _:
                rng.shuffle(lines)
    return "\n".join(lines)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in `value` with one of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield value, key
        yield from _places(part)


def mutate_values(rng: random.Random, value: Any) -> Any:
    """Return a copy of the JSON `value` with parts replaced, left out, renamed, repeated or wrapped."""
    root = [json.loads(json.dumps(value))]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(root))
        # Not always the leaves, which are many.
        owner, key = rng.choice(places if rng.random() < 0.6 else places[: max(len(places) // 4, 1)])
        match rng.randrange(8):
            case 0 if isinstance(owner, dict):
                owner[rng.choice(TEXTS)] = owner.pop(key)
            case 1 if owner is not root:
                del owner[key]
            case 2 if isinstance(owner, list):
                owner.extend([owner[key]] * rng.choice((1, 3, 300)))
            case 3:
                owner[key] = rng.choice(([owner[key]], {"a": owner[key]}, str(owner[key])))
            case 4 if type(owner[key]) in (int, float):
                owner[key] = rng.choice((-owner[key], owner[key] * 1000, owner[key] + 0.5, owner[key] - 1))
            case _:
                owner[key] = odd_value(rng)
    return root[0]


def dump(value: Any, **options: Any) -> str:
    """Return `value` as JSON, also where JSON has no such number."""
    text = json.dumps(value, ensure_ascii=bool(options.pop("ensure_ascii", True)), **options)
    for mark, raw in _RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text


def encode(text: str) -> bytes:
    """Return `text` in UTF-8, with lone surrogates as a broken program writes them."""
    return text.encode("utf-8", "surrogatepass")
