"""The turns of a stream as spans; the timestamps of Qwen3-VL's video against transformers' processor."""

from typing import Any

import numpy as np
import pytest

from streaming_vlm_mlx.stream.turns import TurnWriter
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import TOKENIZER, Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary

SIDE = 64


@pytest.fixture(scope="module")
def processor(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Qwen3-VL's processor around our tokenizer."""
    pytest.importorskip("torch", reason="Hugging Face's processors need torch")
    pytest.importorskip("torchvision", reason="Hugging Face's processors need torchvision")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / TOKENIZER).write_text(tokenizer.backend.to_str(), encoding="utf-8")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER))
    return transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(),
        fast,
        transformers.Qwen3VLVideoProcessor(),
    )


@pytest.mark.parametrize(("start", "fps"), [(0, 2), (1, 2), (13, 2), (2, 4), (3, 6), (9, 3), (59, 8)])
def test_stamps_are_those_of_the_processor(processor: Any, tokenizer: Tokenizer, start: int, fps: int) -> None:
    frames = np.zeros((fps, 3, SIDE, SIDE), np.uint8)
    metadata = {"fps": fps, "frames_indices": [start * fps + k for k in range(fps)], "total_num_frames": 9999}
    prompt = processor(
        text=["<|im_start|>user\n<|video_pad|>Go"],
        videos=[frames],
        video_metadata=[metadata],
        do_sample_frames=False,
    )
    steps, rows, columns = (int(side) for side in prompt["video_grid_thw"][0])
    grid = steps, rows // 2, columns // 2
    template = ChatTemplate.of(tokenizer, has_stamps=True)
    writer = TurnWriter(template, tokenizer, FullVocabulary(len(tokenizer)))
    spans = writer.video(0, float(start), grid, fps, 2)
    written = [i for span in spans for i in span.ids.tolist()]
    assert [*template.user_open, *written, *tokenizer.encode("Go")] == list(prompt["input_ids"][0])
    assert [span.part for span in spans] == ["stamp", "video"] * steps
    assert {span.grid for span in spans if span.part == "video"} == {(1, *grid[1:])}


def test_a_video_without_stamps_is_one_span(tokenizer: Tokenizer) -> None:
    writer = TurnWriter(ChatTemplate.of(tokenizer), tokenizer, FullVocabulary(len(tokenizer)))
    (span,) = writer.video(4, 4.0, (2, 3, 5), 4, 2)
    assert (span.part, span.round, span.grid) == ("video", 4, (2, 3, 5))
    assert span.ids.tolist() == [151652, *[151656] * 30, 151653]


def test_a_step_of_one_frame_has_its_time(tokenizer: Tokenizer) -> None:
    """The frame is repeated to fill the step; transformers takes no video of one frame."""
    writer = TurnWriter(ChatTemplate.of(tokenizer, has_stamps=True), tokenizer, FullVocabulary(len(tokenizer)))
    stamp, _ = writer.video(5, 5.0, (1, 2, 2), 1, 2)
    assert tokenizer.decode(stamp.ids) == "<5.0 seconds>"
