"""Run recorded cases of the published StreamingVLM and LiveCC programs through this engine, teacher-forced.

    python tests/conformance.py [--dir DIR] [--kv-bits 8] CASE...

DIR holds ``model.json`` (the model's shapes; ``livecc_model.json`` for cases of LiveCC), ``recipe.py`` (its weights and
frames) and the case files. One line a case; exit status 1 when ids, positions or cache lengths differ at all, a logit
by more than 2e-3, or a free choice where the recorded margin leaves no doubt. With ``--kv-bits`` the cache is rounded,
which is no longer the recorded program: ids, positions and lengths must still be exact, logits and choices are only
reported.
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from streaming_vlm_mlx import backend

backend.prepare()

import mlx.core as mx
import numpy as np
from mlx.utils import tree_unflatten

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.families import read_config
from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.models.vlm import VisionLanguageModel
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.stream.sampling import TokenSampler, read_row
from streaming_vlm_mlx.stream_settings import LIVECC, PRESETS
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.video.image_processor import to_patches

LOGIT_LIMIT = 2e-3
# The ` ...` token.
SILENCE = 2503
CLEAR_MARGIN = 1e-2
DEFAULT_DIR = Path(__file__).resolve().parents[2] / "shared" / "conformance"


@dataclass
class Tally:
    """What one case came to."""

    chunks: int = 0
    ids: int = 0
    positions: int = 0
    cache: int = 0
    choices: int = 0
    logits: float = 0.0
    tokens: int = 0
    agreed: int = 0
    rounded: bool = False

    @property
    def passed(self) -> bool:
        """Whether everything exact is exact and the logits are within the limit."""
        exact = not (self.ids or self.positions or self.cache)
        return exact and (self.rounded or (not self.choices and self.logits <= LOGIT_LIMIT))

    def line(self, name: str) -> str:
        """Return the case's line."""
        agreement = f", {self.agreed} of {self.tokens} tokens as recorded" if self.rounded else ""
        return (
            f"{name:<16} {self.chunks} chunks, mismatches: {self.ids} ids, {self.positions} positions, "
            f"{self.cache} cache lengths, {self.choices} choices; logits within {self.logits:.1e}{agreement} "
            f"{'ok' if self.passed else 'FAILED'}"
        )


class Forced:
    """Says the recorded tokens; keeps the first logits and what the sampler would have said."""

    def __init__(self, session: Session, recorded: list[int], sampler: TokenSampler) -> None:
        self._session, self._recorded, self._sampler = session, recorded, sampler
        self.logits = np.zeros(0, np.float32)
        self.ids, self.cached, self.positions = np.zeros(0), 0, np.zeros((3, 0))
        self.own: list[int] = []

    def sample(self, logits: mx.array, seen: np.ndarray, step: int) -> int:
        """Return the recorded token."""
        if step == 0:
            self.logits, self.ids, self.positions = np.array(logits), self._session.ids, self._session.positions
            self.cached = self._session.prefilled_from
        self.own.append(read_row(self._sampler.sample(logits, seen, step)))
        return self._recorded[step]


def load_recipe(folder: Path) -> ModuleType:
    """Import `folder`'s recipe.py."""
    spec = importlib.util.spec_from_file_location("conformance_recipe", folder / "recipe.py")
    if spec is None or spec.loader is None or not (folder / "recipe.py").is_file():
        raise SvmError(f"{folder} holds no recipe.py; name the folder of the cases with --dir.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_json(path: Path) -> dict[str, Any]:
    """Read a case or model file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SvmError(f"{path} cannot be read: {error}.") from error


def make_model(folder: Path, recipe: ModuleType, case: dict[str, Any]) -> VisionLanguageModel:
    """Fill the model of a case, which `folder` describes, with the recipe's weights."""
    params = case["params"]
    described = read_json(folder / ("livecc_model.json" if case.get("style") == "livecc" else "model.json"))
    model = VisionLanguageModel(read_config({"model_type": "qwen2_5_vl", **described["config"]}))
    weights = {n: recipe.weight(params["seed"], n, tuple(s)) for n, s in described["weights"].items()}
    weights["lm_head.weight"][SILENCE] *= np.float32(params.get("silence_gain", 1))
    model.update(tree_unflatten([(name, mx.array(array)) for name, array in weights.items()]))
    return model


def make_config(case: dict[str, Any], kv_bits: int | None) -> StreamConfig:
    """Return the settings that a case was recorded with."""
    params = case["params"]
    if case.get("style") == "livecc":
        silence = {"silence_threshold": params.get("base"), "silence_step": params.get("step", 0.0)}
        given = {"query": params["query"], "kv_bits": kv_bits, "sampling": silence}
        return PRESETS[LIVECC].merged(given)
    return StreamConfig(
        mode="recompute" if params.get("recompute") else "streaming",
        window=params["window"],
        text_round=params["text_round"],
        sink=params["sink"],
        slide=params["slide"],
        pos_mode=params.get("pos_mode", "shrink"),
        all_text=params.get("all_text", False),
        kv_bits=kv_bits,
        query=params.get("query", "Commentate on this match"),
        previous=params.get("prev", ""),
        sampling=SamplingConfig(repetition_penalty=params.get("reppen", 1.05), max_new_tokens=20),
    )


def make_session(model: VisionLanguageModel, case: dict[str, Any], kv_bits: int | None = None) -> Session:
    """Begin the stream that a case describes."""
    tokenizer, config = Tokenizer.load(), make_config(case, kv_bits)
    template = ChatTemplate.of(tokenizer, config.style)
    vocabulary = FullVocabulary(model.config.text_config.vocab_size)
    return Session(ModelBundle(model, tokenizer, vocabulary, template, time.perf_counter), config)


def list_turns(case: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[int], str]]:
    """Yield what was recorded of each turn, the seconds that it shows, and the viewer's question in it.

    A question of LiveCC's cases is there from a second on: in the turn that ends then.
    """
    questions = case["params"].get("questions", {})
    for number, chunk in enumerate(case.get("chunks", ())):
        yield chunk, [number], ""
    for turn in case.get("turns", ()):
        yield turn, list(range(round(turn["start"]), round(turn["end"]))), questions.get(f"{turn['end']:.0f}", "")


def make_second(
    recipe: ModuleType, params: dict[str, Any], config: StreamConfig, second: int, question: str = ""
) -> SecondRequest:
    """Return the request for one second of a case's frames."""
    frames = recipe.frames(params["seed"], second, params["h"], params["w"]).transpose(0, 2, 3, 1)
    return SecondRequest(second, float(second), second + 1.0, to_patches(frames, config.pixels), question)


def run_case(
    folder: Path, name: str, model: VisionLanguageModel, recipe: ModuleType, kv_bits: int | None = None
) -> Tally:
    """Play every recorded turn and count what differs."""
    case = read_json(folder / f"{name}.json")
    session = make_session(model, case, kv_bits)
    sampler = TokenSampler(session.config.sampling, silence_row=SILENCE)
    projection = recipe.projection(model.config.text_config.vocab_size)
    tally = Tally(rounded=kv_bits is not None)
    for turn, seconds, question in list_turns(case):
        forced = Forced(session, turn["out"], sampler)
        for second in seconds:
            request = make_second(recipe, case["params"], session.config, second, question)
            for _ in session.generate(request, forced):
                pass
        compare(tally, turn, forced, session, projection)
    return tally


def compare(tally: Tally, chunk: dict[str, Any], forced: Forced, session: Session, projection: np.ndarray) -> None:
    """Add one chunk's differences to `tally`."""
    recorded = np.array(chunk["pos"])
    tally.chunks += 1
    tally.ids += not np.array_equal(forced.ids, chunk["ids"])
    tally.positions += not np.array_equal(forced.positions[:, -recorded.shape[1] :], recorded)
    tally.cache += forced.cached != chunk["cached"] or session.cache_length != chunk["cache_after"]
    tally.tokens += len(chunk["out"])
    tally.agreed += sum(a == b for a, b in zip(forced.own, chunk["out"], strict=True))
    tally.choices += chunk["min_margin"] > CLEAR_MARGIN and forced.own != chunk["out"]
    errors = (
        np.abs(forced.logits[chunk["top_ids"]] - chunk["top_logits"]).max(),
        abs(float(forced.logits @ projection) - chunk["logits_dot"]) / float(np.linalg.norm(projection)),
        abs(float(np.linalg.norm(forced.logits)) - chunk["logits_norm"]),
    )
    tally.logits = max(tally.logits, *map(float, errors))


def main(argv: list[str] | None = None) -> int:
    """Run the cases named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="folder of model.json, recipe.py and the cases")
    parser.add_argument("--kv-bits", type=int, choices=(8, 4), help="round the cache to so many bits")
    parser.add_argument("case", nargs="+", help="a case's name, its file without .json")
    args = parser.parse_args(argv)
    try:
        recipe = load_recipe(args.dir)
        passed = True
        for name in args.case:
            model = make_model(args.dir, recipe, read_json(args.dir / f"{name}.json"))
            tally = run_case(args.dir, name, model, recipe, args.kv_bits)
            print(tally.line(name), flush=True)
            passed &= tally.passed
    except SvmError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
