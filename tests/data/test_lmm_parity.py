"""Held against what StreamingVLM's own LMMDataset made of the same file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming_vlm_mlx.config import PixelConfig
from streaming_vlm_mlx.data.clip_metadata import probe_clip
from streaming_vlm_mlx.data.dataset import SampleBuilder, SampleConfig
from streaming_vlm_mlx.data.frame_workers import count_seconds, read_frames
from streaming_vlm_mlx.data.records import RecordFile
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import Tokenizer

PLAIN = SampleConfig(text_sink=0, text_sliding_window=0)


def texts(messages: list[Any]) -> list[tuple[str, str]]:
    said = [next(part["text"] for part in message["content"] if "text" in part) for message in messages]
    return list(zip(said[::2], said[1::2], strict=True))


@pytest.mark.parametrize("index", range(3))
class TestSample:
    def test_texts(self, games: RecordFile, expected: Any, index: int) -> None:
        previous, *messages = expected["plain"][index]["conversation"]
        assert games[index].previous == previous["text"]
        assert [(turn.user_text, turn.assistant_text) for turn in games[index].turns] == texts(messages)

    def test_ids_labels_and_grid(self, games: RecordFile, expected: Any, tokenizer: Tokenizer, index: int) -> None:
        want = expected["plain"][index]
        sample = SampleBuilder(tokenizer, PLAIN).build(games[index])
        assert sample.input_ids.tolist() == want["input_ids"]
        assert np.flatnonzero(sample.labels != -100).tolist() == want["label_positions"]
        assert (sample.labels == sample.input_ids)[want["label_positions"]].all()
        assert sample.video_grid_thw.tolist() == want["video_grid_thw"]

    def test_ids_with_the_previous_text_cut(
        self, games: RecordFile, expected: Any, tokenizer: Tokenizer, index: int
    ) -> None:
        builder = SampleBuilder(tokenizer, SampleConfig(text_sink=4, text_sliding_window=4))
        want = expected["text_sink_4_sliding_4"][index]["input_ids"]
        assert builder.build(games[index]).input_ids.tolist() == want

    def test_frames(self, games: RecordFile, expected: Any, index: int) -> None:
        want, record = expected["plain"][index], games[index]
        shapes = [part["video_shape"] for message in want["conversation"] for part in video_parts(message)]
        frames, times = read_frames(
            Path(record.video), record.video_start, record.video_end, want["frame_count"], 2, PixelConfig()
        )
        assert times.tolist() == pytest.approx(want["frame_times"], abs=1e-9)
        assert frames.shape == (sum(shape[0] for shape in shapes), shapes[0][2], shapes[0][3], 3)

    def test_seconds_are_counted_without_decoding(self, games: RecordFile, expected: Any, index: int) -> None:
        record = games[index]
        times = probe_clip(Path(record.video)).times
        want = expected["plain"][index]["frame_count"]
        assert 2 * count_seconds(times, record.video_start, record.video_end, 2) == want


def video_parts(message: Any) -> list[Any]:
    return [part for part in message.get("content", []) if "video_shape" in part]


def test_the_layout_of_turns_writes_the_same_ids(games: RecordFile, expected: Any, tokenizer: Tokenizer) -> None:
    template = ChatTemplate.of(tokenizer, "training")
    for index, want in enumerate(expected["plain"]):
        record = games[index]
        ids = [*template.system_turn, *template.previous_open, *tokenizer.encode(record.previous), *template.turn_close]
        for number, turn in enumerate(record.turns):
            ids += template.user_open
            ids += tokenizer.encode(template.time(turn.start, turn.end, turn.question, first=not number))
            ids += [*template.video(299), *template.turn_close, *template.assistant_open(bool(turn.answer))]
            ids += tokenizer.encode(turn.assistant_text.removeprefix("\n"))
            ids += template.turn_close
        assert ids == want["input_ids"]
