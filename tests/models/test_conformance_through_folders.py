"""Runs the recorded cases on weights converted to Hugging Face's layout and back, and on quantized weights."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.convert_checkpoint import Conversion, convert, make_plan
from streaming_vlm_mlx.models.loading import Checkpoint, arrange_for_decode, load_checkpoint, save_checkpoint
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.sampling import penalise
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from tests.modules import load_module

SCRIPT = Path(__file__).parents[1] / "conformance.py"
CASES = ["balanced", "text_longer", "vision_longer", "append", "full_attention", "recompute"]


@pytest.fixture(scope="module")
def conformance() -> ModuleType:
    """The command that runs the cases, as a module."""
    return load_module(SCRIPT, "conformance_of_folders")


class Models:
    """The model of a case's seed, converted once; the last one is kept."""

    def __init__(self, conformance: ModuleType, cases: Path, folder: Path, tokenizer: Tokenizer) -> None:
        self.conformance, self.cases, self.folder, self.tokenizer = conformance, cases, folder, tokenizer
        self.recipe = conformance.load_recipe(cases)
        self.made: dict[tuple[int, int | None], VisionLanguageModel] = {}

    def of(self, name: str, bits: int | None) -> VisionLanguageModel:
        case = self.conformance.read_json(self.cases / f"{name}.json")
        seed = case["params"]["seed"]
        if (seed, bits) not in self.made:
            self.made[seed, bits] = self._through_a_folder(case, seed, bits)
        return self.made[seed, bits]

    @cache  # noqa: B019 - as many plays as there are cases, for as long as the tests run
    def play(self, name: str, bits: int | None) -> tuple[Any, list[tuple[bool, float]]]:
        """Return a case's tally, and of each token whether it would have been chosen, and by what margin."""
        choices: list[tuple[bool, float]] = []

        class Compared(self.conformance.Forced):  # type: ignore[name-defined,misc]
            def sample(self, logits: mx.array, seen: np.ndarray, step: int) -> int:
                recorded: int = super().sample(logits, seen, step)
                second, first = np.partition(penalise(np.array(logits), np.unique(seen), 1.05), -2)[-2:]
                choices.append((self.own[-1] == recorded, float(first - second)))
                return recorded

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.conformance, "Forced", Compared)
            return self.conformance.run_case(self.cases, name, self.of(name, bits), self.recipe), choices

    def _through_a_folder(self, case: dict[str, Any], seed: int, bits: int | None) -> VisionLanguageModel:
        """Return the model of a case behind Hugging Face's layout, and behind `bits` that were made of that."""
        source, hub, packed = (self.folder / f"{name}{seed}" for name in ("run", "hub", f"packed{bits}-"))
        if not source.exists():
            model = self.conformance.make_model(self.cases, self.recipe, case)
            vocabulary = FullVocabulary(model.config.text_config.vocab_size)
            save_checkpoint(source, Checkpoint(model, self.tokenizer, vocabulary, StreamConfig()))
            self._convert(Conversion(source, hub, shard_bytes=10_000_000))
        if bits:
            self._convert(Conversion(hub, packed, bits))
        made = load_checkpoint(packed if bits else hub, mx.float32).model
        arrange_for_decode(made)
        return made

    def _convert(self, job: Conversion) -> None:
        convert(job, make_plan(job))


@pytest.fixture(scope="module")
def models(
    conformance: ModuleType, shared: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Models]:
    """Models of the cases' seeds; the tokenizer, which takes a while to read, is taken as read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "load", lambda _=None: tokenizer)
        yield Models(conformance, shared / "conformance", tmp_path_factory.mktemp("folders"), tokenizer)


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(models: Models, name: str) -> None:
    tally, _ = models.play(name, None)
    assert tally.passed, tally.line(name)
    assert tally.chunks > 0


def test_choices_of_8_bits(conformance: ModuleType, models: Models) -> None:
    """Teacher-forced, over all cases; the ids of a random model are 150,000 near-equals, so that some choices hang."""
    margins, same = [], []
    for name in CASES:
        tally, choices = models.play(name, 8)
        assert (tally.ids, tally.positions, tally.cache) == (0, 0, 0), name
        same += [agrees for agrees, _ in choices]
        margins += [margin for _, margin in models.play(name, None)[1]]
    clear, agreed = np.array(margins) > conformance.CLEAR_MARGIN, np.array(same)
    assert len(agreed) == 1059
    assert 0.97 <= agreed.mean() < 1
    assert agreed[clear].mean() >= 0.98
