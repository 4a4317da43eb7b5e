"""The turns of a stream as spans, against transformers' processors and Qwen's own chat template."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.stream.pruning import prune
from streaming_vlm_mlx.stream.spans import Spans, join_ids
from streaming_vlm_mlx.stream.turns import TurnWriter
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import TOKENIZER, Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary

SIDE = 64


@pytest.fixture(scope="module")
def processor(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Qwen3-VL's processor around our tokenizer."""
    return make_processor(tokenizer, tmp_path_factory, "Qwen3VLProcessor", "Qwen3VLVideoProcessor")


@pytest.fixture(scope="module")
def unstamped(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Qwen2.5-VL's processor around our tokenizer."""
    return make_processor(tokenizer, tmp_path_factory, "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor")


def make_processor(tokenizer: Tokenizer, temporary: pytest.TempPathFactory, name: str, video: str) -> Any:
    pytest.importorskip("torch", reason="Hugging Face's processors need torch")
    pytest.importorskip("torchvision", reason="Hugging Face's processors need torchvision")
    transformers = pytest.importorskip("transformers")
    folder = temporary.mktemp("tokenizer")
    (folder / TOKENIZER).write_text(tokenizer.backend.to_str(), encoding="utf-8")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER))
    processors = transformers.Qwen2VLImageProcessor(), fast, getattr(transformers, video)()
    return getattr(transformers, name)(*processors)


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


INSTRUCT = StreamConfig(style="instruct", window=2, text_round=4, slide=4)


def chat_ids(
    processor: Any, template: str, messages: list[dict[str, Any]], seconds: Sequence[int]
) -> tuple[list[int], tuple[int, int, int]]:
    """Return what transformers writes for `messages` with a video for each of `seconds`, and the grid of a video."""
    text = processor.tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    if hasattr(processor, "vision_start_token"):
        # Qwen3-VL's processor writes the marks of each step, behind its time.
        text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    frames = np.zeros((2, 3, SIDE, SIDE), np.uint8)
    metadata = [{"fps": 2, "frames_indices": [2 * k, 2 * k + 1], "total_num_frames": 9999} for k in seconds]
    prompt = processor(text=[text], videos=[frames] * len(seconds), video_metadata=metadata, do_sample_frames=False)
    steps, rows, columns = (int(side) for side in prompt["video_grid_thw"][0])
    return list(prompt["input_ids"][0]), (steps, rows // 2, columns // 2)


@dataclass
class OneTurn:
    """The sequence of an instruct stream without a model."""

    writer: TurnWriter
    config: StreamConfig
    spans: Spans = ()

    def second(self, number: int, grid: tuple[int, int, int], question: str) -> list[int]:
        """Return the ids of second `number`."""
        kept, _ = prune(self.spans or self.writer.head(self.config.previous), number, self.config)
        video = self.writer.video(number, float(number), grid, 2, 2)
        self.spans = self.writer.one_turn(kept, number, video, question, self.config.query)
        ids: list[int] = join_ids(self.spans).tolist()
        return ids

    def reply(self, number: int, ids: Sequence[int]) -> None:
        """Append a reply."""
        self.spans = (*self.spans, *self.writer.reply(number, ids, ()))


@pytest.mark.parametrize("family", ["processor", "unstamped"])
def test_an_instruct_stream_is_the_chat_that_transformers_writes(
    request: pytest.FixtureRequest, family: str, tokenizer: Tokenizer, shared: Path
) -> None:
    processor = request.getfixturevalue(family)
    chat = json.loads((shared / "qwen_tokenizer" / "chat_template.json").read_text("utf-8"))["chat_template"]
    template = ChatTemplate.of(tokenizer, "instruct", "Say what changes.", has_stamps=family == "processor")
    writer = TurnWriter(template, tokenizer, FullVocabulary(len(tokenizer)))
    ours = OneTurn(writer, replace(INSTRUCT, previous="The reds have the ball"))
    said = {-1: "the ball", 1: "She saves, and it is a corner!", 2: "It is 2-1.", 4: "The reds press."}
    for number in range(9):
        question = "Who has the ball?" if number == 4 else ""
        lines = [said[k] for k in range(number - 3, number) if k in said]
        request_text = (
            "The viewer asks: Who has the ball?\nAnswer in one short sentence."
            if question
            else "Commentate on this match\nWhat has just changed? One short sentence, or ... if nothing has."
        )
        seen = range(max(number - 1, 0), number + 1)
        content = [{"type": "video"} for _ in seen]
        if lines:
            content = [{"type": "text", "text": "\n".join(["You said in the last seconds:", *lines, ""])}, *content]
        messages = [
            {"role": "system", "content": "Say what changes."},
            {"role": "user", "content": [*content, {"type": "text", "text": request_text}]},
        ]
        theirs, grid = chat_ids(processor, chat, messages, seen)
        assert ours.second(number, grid, question) == theirs
        ours.reply(number, tokenizer.encode(said.get(number, "")))


def test_the_system_turn_is_the_styles_own_or_the_settings(tokenizer: Tokenizer) -> None:
    vocabulary = FullVocabulary(len(tokenizer))
    for style, text in (("inference", "You are a helpful assistant."), ("instruct", "one short sentence")):
        for system in ("", "You are a poet."):
            template = ChatTemplate.of(tokenizer, style, system)
            head = tokenizer.decode(join_ids(TurnWriter(template, tokenizer, vocabulary).head("")))
            assert (system or text) in head


def test_the_stamps_of_a_turn_of_several_seconds_go_on(tokenizer: Tokenizer) -> None:
    writer = TurnWriter(ChatTemplate.of(tokenizer, has_stamps=True), tokenizer, FullVocabulary(len(tokenizer)))
    for fps, steps, times in (
        (2, 3, ["0.2", "1.2", "2.2"]),
        (4, 4, ["0.1", "0.6", "1.1", "1.6"]),
        (3, 4, ["0.2", "0.7", "1.2", "1.7"]),
    ):
        stamps = writer.video(0, 0.0, (steps, 2, 2), fps, 2)[::2]
        assert [tokenizer.decode(stamp.ids) for stamp in stamps] == [f"<{time} seconds>" for time in times]
