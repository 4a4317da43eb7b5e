"""Tests samples beyond what `test_lmm_parity` compares."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.dataset import SampleBuilder, SampleConfig
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text.tokenizer import Tokenizer

PIXELS = PixelConfig(min_pixels=28 * 28)


def record(said: str = " word", previous: str = "", **changes: Any) -> StreamingRecord:
    turn = Turn(0.0, 1.0, "Time=0.0-1.0s", f"\n{said} ...")
    return replace(StreamingRecord("a.mp4", 0.0, 1.0, (turn,), previous, width=56, height=56), **changes)


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.text(st.characters(codec="utf-8"), max_size=30))
def test_only_commentary_is_learned_whatever_is_written(tokenizer: Tokenizer, said: str, previous: str) -> None:
    sample = SampleBuilder(tokenizer, SampleConfig(pixels=PIXELS)).build(record(said, previous))
    special = tokenizer.special
    assert np.count_nonzero(sample.input_ids == special.im_start) == 4
    assert np.count_nonzero(sample.input_ids == special.video_pad) == 4
    is_target = sample.labels[sample.labels != -100].tolist()
    body = tokenizer.encode(f"\n\n{said} ...")
    assert is_target == [*body[1:], special.im_end]
    assert sample.input_ids[-2:].tolist() == [special.im_end, special.newline]


@given(st.integers(0, 60), st.integers(0, 30), st.integers(0, 30))
def test_the_previous_text_is_cut_in_the_middle(tokenizer: Tokenizer, words: int, sink: int, tail: int) -> None:
    previous = " ".join(f"{n}" for n in range(words))
    whole = SampleBuilder(tokenizer, SampleConfig(0, 0, pixels=PIXELS)).build(record(previous=previous))
    cut = SampleBuilder(tokenizer, SampleConfig(sink, tail, pixels=PIXELS)).build(record(previous=previous))
    special = tokenizer.special
    system = whole.input_ids.tolist().index(special.newline, 4) + 1
    turn = len(tokenizer.encode(previous)) + 6
    kept = turn if (sink, tail) == (0, 0) else min(turn, sink + tail)
    assert len(cut) == len(whole) - turn + kept
    head = min(sink, kept) if kept < turn else kept
    assert cut.input_ids[: system + head].tolist() == whole.input_ids[: system + head].tolist()
    rest = len(cut) - system - head
    assert cut.input_ids[-rest:].tolist() == whole.input_ids[-rest:].tolist()


def test_positions_are_hugging_faces(games: RecordFile, tokenizer: Tokenizer) -> None:
    torch = pytest.importorskip("torch")
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

    reference = Qwen2_5_VLModel.__new__(Qwen2_5_VLModel)
    torch.nn.Module.__init__(reference)
    reference.config = Qwen2_5_VLConfig()
    for index in range(3):
        sample = SampleBuilder(tokenizer, SampleConfig()).build(games[index])
        ids = torch.tensor(sample.input_ids[None].astype(np.int64))
        found, _ = reference.get_rope_index(
            ids,
            mm_token_type_ids=2 * (ids == tokenizer.special.video_pad).int(),
            video_grid_thw=torch.tensor(sample.video_grid_thw.astype(np.int64)),
            second_per_grid_ts=torch.ones(len(sample.video_grid_thw)),
            attention_mask=torch.ones_like(ids),
        )
        assert sample.position_ids.tolist() == found[:, 0].tolist()


def test_positions_on_one_axis(tokenizer: Tokenizer) -> None:
    sample = SampleBuilder(tokenizer, SampleConfig(all_text=True, pixels=PIXELS)).build(record())
    assert (sample.position_ids == np.arange(len(sample))).all()


def test_four_frames_a_second_are_two_grids_in_time(tokenizer: Tokenizer) -> None:
    sample = SampleBuilder(tokenizer, SampleConfig(pixels=PIXELS)).build(record(fps=4.0))
    assert sample.video_grid_thw.tolist() == [[2, 4, 4]]
    pads = np.flatnonzero(sample.input_ids == tokenizer.special.video_pad)
    assert len(pads) == 8
    times = sample.position_ids[0, pads]
    assert (times - times[0]).tolist() == [0] * 4 + [1] * 4


def test_a_clip_of_unknown_size_is_looked_up(tokenizer: Tokenizer, clips: Path) -> None:
    builder = SampleBuilder(tokenizer, SampleConfig(pixels=PIXELS))
    unknown = record(video=str(clips / "short.mp4"), width=0, height=0)
    assert builder.build(unknown).video_grid_thw.tolist() == [[1, 4, 4]]
    with pytest.raises(SvmError, match=r"absent.mp4 does not exist"):
        builder.build(record(video="absent.mp4", width=0, height=0))


def test_the_shape_of_its_pixels(tokenizer: Tokenizer) -> None:
    builder = SampleBuilder(tokenizer, SampleConfig(pixels=PIXELS))
    sample: Any = SimpleNamespace(video_grid_thw=np.array([[1, 4, 4], [2, 4, 6]]))
    assert builder.pixels_shape(sample) == (16 + 48, 1176)
