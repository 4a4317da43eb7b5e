"""Annotations and clips for tests."""

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from streaming_vlm_mlx.data.clip_metadata import ClipCache
from streaming_vlm_mlx.data.convert_dataset import ConversionSummary, DatasetConversion, convert_dataset


def conversation(video: str, start: Any, end: Any, words: Any, questions: Any = None, previous: Any = "") -> Any:
    """One sample in StreamingVLM's format."""
    stream = {"type": "text_stream", "text_stream": words}
    if questions is not None:
        stream["qa_stream"] = questions
    return [
        {
            "role": "user",
            "content": [
                {"type": "video", "video": video, "video_start": start, "video_end": end},
                {"type": "text", "text": "Commentate", "previous": previous, "title": ""},
            ],
        },
        {"role": "assistant", "content": [stream]},
    ]


def write_annotations(path: Path, samples: Iterable[Any], *, index: bool = False) -> Path:
    """Write samples (raw strings as they are), and the index beside them if asked."""
    lines = [s if isinstance(s, str) else json.dumps(s) for s in samples]
    data = [(line + "\n").encode() for line in lines]
    path.write_bytes(b"".join(data))
    if index:
        offsets = np.cumsum([0, *map(len, data)])[:-1].tolist()
        beside = path.with_name(path.name.removesuffix(".jsonl").replace("_with_seeks", "") + "_seeks.jsonl")
        beside.write_text(json.dumps(offsets))
    return path


def convert(conversion: DatasetConversion, resume: bool = False, **options: Any) -> ConversionSummary:
    """Convert with a cache of clips in memory."""
    with ClipCache() as cache:
        return convert_dataset(conversion, cache, resume, **options)


def write_clip(path: Path, pts: Iterable[int], rate: int = 25, size: tuple[int, int] = (64, 48)) -> Path:
    """Write a clip with frames at `pts` / `rate` seconds; the n-th frame is a grey of 2 n."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"qp": "0", "bf": "2", "g": "10"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        for number, at in enumerate(pts):
            grey = np.full((size[1], size[0], 3), min(2 * number, 255), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, rate)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
