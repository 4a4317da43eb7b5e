"""Streams of a Qwen3-VL, second by second, against one prefill in transformers with the same positions."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import Mode, StreamConfig
from streaming_vlm_mlx.models.loading import ModelBundle, load_checkpoint
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.video.image_processor import Patches
from tests.stream.streams import GREEDY

torch = pytest.importorskip("torch", reason="transformers' models need torch")

SECONDS, FPS, LIMIT = 12, 4, 2e-3
GRID = (2, 6, 10)
VIDEO_PAD, IM_END = 151656, 151645
WORDS = (825, 1378, 2326, 2503)
Pair = tuple[Any, ModelBundle]


def make_pair(sizes: Any, folder: Path, tokenizer: Tokenizer) -> Pair:
    """Return the reference of `sizes`, and its weights as this program streams them."""
    from tests.models import hugging_face as hf

    reference = hf.make_torch(sizes, seed=23)
    hf.load_saved(reference, folder, tokenizer)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # A stream counts in the ids of the tokenizer, the reference in rows of its small vocabulary.
    (folder / "config.json").write_text(json.dumps(config | {"video_token_id": VIDEO_PAD}), encoding="utf-8")
    checkpoint = load_checkpoint(folder, mx.float32)
    reference.config.video_token_id = int(checkpoint.vocabulary.to_rows([VIDEO_PAD])[0])
    template = ChatTemplate.of(tokenizer, has_stamps=sizes.family == "qwen3_vl")
    return reference, ModelBundle(checkpoint.model, tokenizer, checkpoint.vocabulary, template, lambda: 0.0)


@pytest.fixture(scope="module", params=["tied, one query a key, two DeepStack layers", "untied, eight queries a key"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Pair:
    """A model of the sizes of that name."""
    from tests.models import hugging_face as hf

    return make_pair(hf.QWEN3_SIZES[request.param], tmp_path_factory.mktemp("hub"), tokenizer)


def make_second(index: int) -> SecondRequest:
    random = np.random.default_rng([5, index])
    pixels = random.standard_normal((int(np.prod(GRID)), 3 * 2 * 16 * 16), dtype=np.float32)
    return SecondRequest(index, float(index), index + 1.0, Patches(pixels, GRID))


def said(index: int) -> list[int]:
    """Return what the model is made to say in a second."""
    return [*(WORDS[(index + k) % 3] for k in range(index % 4)), WORDS[3], IM_END]


@dataclass
class Probe:
    """A sampler that says given words, and keeps what the model was asked with and its first logits."""

    session: Session
    bundle: ModelBundle
    words: list[int]
    ids: Any = None
    positions: Any = None
    logits: Any = None

    def sample(self, logits: mx.array, seen: np.ndarray, step: int) -> int:
        if step == 0:
            self.ids, self.positions, self.logits = self.session.ids, self.session.positions, np.array(logits)
        return int(self.bundle.vocabulary.to_rows([self.words[step]])[0])


def stream(bundle: ModelBundle, config: StreamConfig) -> list[Probe]:
    """Return what each second was asked with."""
    session, probes = Session(bundle, config), []
    for index in range(SECONDS):
        probe = Probe(session, bundle, said(index))
        for _ in session.generate(make_second(index), probe):
            pass
        probes.append(probe)
    return probes


def prefill(reference: Any, bundle: ModelBundle, ids: np.ndarray, positions: np.ndarray, shown: list[int]) -> Any:
    """Return the reference's logits of each token of `ids`, which show the seconds `shown`."""
    rows = bundle.vocabulary.to_rows(ids).astype(np.int64)
    pixels = [values.pixel_values for index in shown if (values := make_second(index).patches)]
    assert np.count_nonzero(ids == VIDEO_PAD) == len(shown) * np.prod(GRID) // 4
    with torch.no_grad():
        found = reference(
            input_ids=torch.tensor(rows[None]),
            attention_mask=torch.ones((1, len(rows)), dtype=torch.int64),
            position_ids=torch.tensor(positions[:, None]),
            pixel_values_videos=torch.tensor(np.concatenate(pixels)),
            video_grid_thw=torch.tensor([GRID] * len(shown)),
        )
    return found.logits[0].numpy()


@pytest.mark.parametrize("mode", ["full", "recompute", "streaming"])
def test_a_whole_stream_equals_one_prefill(pair: Pair, mode: Mode) -> None:
    reference, bundle = pair
    probes = stream(bundle, StreamConfig(mode=mode, window=SECONDS, text_round=SECONDS, fps=FPS, sampling=GREEDY))
    last = probes[-1]
    whole = prefill(reference, bundle, last.ids, last.positions, list(range(SECONDS)))
    assert whole.std() > 0.1
    for probe in probes:
        assert np.array_equal(probe.ids, last.ids[: len(probe.ids)])
        assert np.array_equal(probe.positions, last.positions[:, : len(probe.ids)])
        assert np.abs(probe.logits - whole[len(probe.ids) - 1]).max() < LIMIT


@pytest.mark.parametrize(("window", "text_round"), [(2, 5), (5, 2), (3, 3)])
def test_a_recomputed_second_equals_a_prefill_of_what_is_kept(pair: Pair, window: int, text_round: int) -> None:
    reference, bundle = pair
    config = StreamConfig(mode="recompute", window=window, text_round=text_round, fps=FPS, sampling=GREEDY)
    for index, probe in enumerate(stream(bundle, config)):
        shown = list(range(max(0, index + 1 - window), index + 1))
        logits = prefill(reference, bundle, probe.ids, probe.positions, shown)[-1]
        assert np.abs(probe.logits - logits).max() < LIMIT


def test_the_stamps_of_what_is_shown_are_kept_and_no_others(pair: Pair) -> None:
    _, bundle = pair
    probes = stream(bundle, StreamConfig(window=2, text_round=4, sink=4, slide=4, fps=FPS, sampling=GREEDY))
    text = bundle.tokenizer.decode(probes[-1].ids, markup=True).replace("<|video_pad|>", "")
    video = "<|vision_start|><|vision_end|>"
    assert "".join(re.findall(r"<\d+\.\d seconds>|<\|vision_\w+\|>", text)) == (
        f"<10.1 seconds>{video}<10.6 seconds>{video}<11.1 seconds>{video}<11.6 seconds>{video}"
    )
    assert text.count("Time=") == 4


def test_a_pruned_stream_of_one_layer_equals_a_prefill(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The keys and values of a first layer do not depend on what was dropped, so pruning must not show."""
    from tests.models import hugging_face as hf

    sizes = replace(hf.QWEN3_SIZES["untied, heads wider than the model"], layers=1, deepstack=(0,))
    reference, bundle = make_pair(sizes, tmp_path, tokenizer)
    config = StreamConfig(window=3, text_round=5, sink=6, slide=6, fps=FPS, sampling=GREEDY)
    for index, probe in enumerate(stream(bundle, config)):
        shown = list(range(max(0, index - 2), index + 1))
        logits = prefill(reference, bundle, probe.ids, probe.positions, shown)[-1]
        assert np.abs(probe.logits - logits).max() < LIMIT
