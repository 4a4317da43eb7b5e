"""Damaged transcripts: WebVTT, SRT, and JSON of Whisper, WhisperX, whisper.cpp and this program."""

import json
import math
import random
from collections.abc import Callable
from typing import Any

from streaming_vlm_mlx.data.livecc_annotations import open_samples
from streaming_vlm_mlx.data.transcripts import Transcript, read_transcript
from streaming_vlm_mlx.input_files import LONGEST
from streaming_vlm_mlx.matches.match_truth import read_truth
from streaming_vlm_mlx.shipped import SAMPLE
from tests.fuzz.case import Case, check
from tests.fuzz.mutations import dump, encode, mutate_bytes, mutate_text, mutate_values, odd_name, odd_value
from tests.video.clips import make_clip

WORDS = ("the", "ball", "is", "played", "wide", "she", "shoots", "it", "goes", "over", "&amp;", "<i>out</i>", "…")


def run(case: Case) -> None:
    """Write a transcript and read it; sometimes convert it with a clip."""
    rng = case.rng
    if rng.random() < 0.08:
        _read_match(case)
        return
    ending = rng.choice((".vtt", ".srt", ".json"))
    path = case.folder / odd_name(rng, ending)
    path.write_bytes(_bomb(rng, ending) if rng.random() < 0.08 else _content(rng, ending))
    transcript = case.attempt(lambda: read_transcript(path))
    if transcript is not None:
        _check(transcript)
    if rng.random() < 0.15:
        clip = case.folder / "clip.mp4"
        clip.write_bytes(case.base("clip.mp4", lambda made: make_clip(made, count=60, rate=10)))
        case.attempt(lambda: [list(source.candidates(range(len(source)))) for source in open_samples([clip, path])])  # type: ignore[arg-type]
        case.run("convert", clip, path, "--out", case.folder / "out.jsonl")


def _read_match(case: Case) -> None:
    """Read the truth of a simulated match, damaged, as a truth and as a transcript."""
    values = json.loads(SAMPLE.with_suffix(".truth.json").read_text(encoding="utf-8"))
    path = case.folder / "clip.truth.json"
    # Its columns of numbers are many and alike.
    frames = values.pop("frames")
    values = mutate_values(case.rng, values)
    if isinstance(values, dict):
        values["frames"] = mutate_values(case.rng, frames) if case.rng.random() < 0.3 else frames
    path.write_bytes(encode(dump(values)))
    case.attempt(lambda: read_truth(path))
    case.attempt(lambda: read_transcript(path))


def _check(transcript: Transcript) -> None:
    ends = [end for _, end, _ in transcript.words]
    check(ends == sorted(ends), "ends ascend")
    check(
        all(math.isfinite(start) and 0 <= start <= LONGEST * 4 for start, _, _ in transcript.words), "times are times"
    )
    check(all(word and not word.isspace() for _, _, word in transcript.words), "words are not empty")


def _content(rng: random.Random, ending: str) -> bytes:
    if ending == ".json":
        value = rng.choice((_whisper, _whisperx, _whisper_cpp, _session, _pairs))(rng, rng.choice((1, 5, 60)))
        text = dump(mutate_values(rng, value), ensure_ascii=rng.random() < 0.5)
    else:
        text = mutate_text(rng, _cues(rng, ending, rng.choice((1, 5, 60))))
    data = text.encode("utf-16", "surrogatepass") if rng.random() < 0.05 else encode(text)
    return mutate_bytes(rng, data) if rng.random() < 0.3 else data


def _said(rng: random.Random, most: int = 9) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(1, most)))


def _clock(seconds: float, point: str) -> str:
    return f"{int(seconds // 3600):02d}:{int(seconds // 60) % 60:02d}:{seconds % 60:06.3f}".replace(".", point)


def _cues(rng: random.Random, ending: str, count: int) -> str:
    point = "." if ending == ".vtt" else ","
    blocks = ["WEBVTT\nKind: captions\n"] if ending == ".vtt" else []
    for number in range(count):
        start, end = number * 1.5, number * 1.5 + rng.choice((0.0, 1.0, 4.0))
        text = _said(rng)
        if ending == ".vtt" and rng.random() < 0.5:
            text = text.replace(" ", f"<{_clock(start + 0.5, point)}><c> ", 2) + "</c>\n" + _said(rng)
        blocks.append(f"{number + 1}\n{_clock(start, point)} --> {_clock(end, point)} align:start\n{text}\n")
    return rng.choice(("\n", "\n", "\r\n")).join("\n".join(blocks).split("\n"))


def _whisper(rng: random.Random, count: int) -> Any:
    return {"segments": [{"id": n, "start": 1.5 * n, "end": 1.5 * n + 1.2, "text": _said(rng)} for n in range(count)]}


def _whisperx(rng: random.Random, count: int) -> Any:
    words: list[Any] = [
        {"word": rng.choice(WORDS), "start": n * 0.4, "end": n * 0.4 + 0.3, "score": 0.9} for n in range(9)
    ]
    for word in words:
        if rng.random() < 0.3:
            del word["start"], word["end"]
    return {"segments": [{"start": 0.0, "end": 4.0, "text": "x", "words": words}] * count, "language": "en"}


def _whisper_cpp(rng: random.Random, count: int) -> Any:
    parts = [{"offsets": {"from": 900 * n, "to": 900 * n + 800}, "text": _said(rng)} for n in range(count)]
    return {"transcription": parts, "systeminfo": "AVX"}


def _session(rng: random.Random, count: int) -> Any:
    return {"version": 2, "seconds": [{"index": n, "start": n, "end": n + 1, "text": _said(rng)} for n in range(count)]}


def _pairs(rng: random.Random, count: int) -> Any:
    return [[n * 0.5, n * 0.5 + 0.4, rng.choice(WORDS)] for n in range(count)]


def _bomb(rng: random.Random, ending: str) -> bytes:
    """Return a large file, or one on which a careless reader takes time that grows with the square."""
    size = rng.choice((1 << 20, 7 << 20, 31 << 20, 60 << 20))
    cue = "00:00:00.000 --> 00:00:01.000\n"
    texts: dict[str, Callable[[], str]] = {
        "cues": lambda: "WEBVTT\n\n" + (cue + "a\n\n") * (size // len(cue)),
        "cues without lines": lambda: "WEBVTT\n\n" + cue * (size // len(cue)),
        "arrows": lambda: "-->\n" * (size // 4),
        "one cue": lambda: "WEBVTT\n\n" + cue + "word " * (size // 5),
        "many lines": lambda: "WEBVTT\n\n" + cue + "word\n" * (size // 5),
        "tags": lambda: (
            "WEBVTT\n\n" + cue + rng.choice(("<", "{\\", "<00:00:00.5", "&#", "&amp", "{\\}{")) * (size // 20)
        ),
        "times": lambda: "WEBVTT\n\n" + cue + "<00:00:00.500>a" * (size // 15),
        "digits": lambda: "1" * size + ":00:00.000 --> 00:00:01.000\na\n",
        "empty lines": lambda: "\n" * size,
    }
    values: dict[str, Callable[[], str]] = {
        "segments": lambda: json.dumps(_whisper(rng, 1))[:-2] + ',{"start":1,"end":2,"text":"a"}' * (size // 30) + "]}",
        "words": lambda: (
            '{"segments":[{"start":0,"end":9,"words":[' + '{"word":"a"},' * (size // 13) + '{"word":"b"}]}]}'
        ),
        "lists": lambda: "[" + "[]," * (size // 3) + "[]]",
        "objects": lambda: "[" + "{}," * (size // 3) + "{}]",
        "numbers": lambda: "[" + "1.5," * (size // 4) + "1]",
        "pairs": lambda: "[" + '[0,1,"a"],' * (size // 10) + '[0,1,"b"]]',
        "text": lambda: dump([[0, 1, "a " * (size // 2)], [1, 2, odd_value(rng)]]),
        "escapes": lambda: '[[0,1,"' + "\\u0041" * (size // 6) + '"]]',
    }
    chosen = values if ending == ".json" else texts
    return encode(chosen[rng.choice(sorted(chosen))]())
