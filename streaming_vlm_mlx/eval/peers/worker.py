"""One row of a comparison as a process: it loads a checkpoint, and computes what each line on stdin asks for.

Lines in both directions are JSON. It imports MLX only where the row computes with it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.config_io import FromDict
from streaming_vlm_mlx.eval.bench import (
    BenchConfig,
    Conversation,
    Prompt,
    SecondCost,
    Spoken,
    forced_tokens,
    patches_of,
)
from streaming_vlm_mlx.memory import peak_memory

if TYPE_CHECKING:
    import mlx.core as mx

    from streaming_vlm_mlx.stream.sampling import Choice, Rows, TokenSampler

Who = Literal[
    "svm-tui", "svm-tui recompute", "transformers window", "transformers cache", "mlx-vlm window", "mlx-vlm cache"
]
ROWS: tuple[Who, ...] = get_args(Who)
# Seconds that are generated before the first that is measured.
WARM_UP = 2


@dataclass(frozen=True)
class WorkerSpec(FromDict):
    """What a worker runs.

    Attributes:
        who: the row.
        folder: the checkpoint; the scores of the warm-up are written there too.
        config: of the benchmark.
        dtype: of the computations on a GPU.
    """

    who: Who = "svm-tui"
    folder: str = ""
    config: BenchConfig = field(default_factory=BenchConfig)
    dtype: str = "float32"

    @property
    def scores(self) -> Path:
        """The file of the warm-up's scores: float32 [seconds, first and last token, vocab]."""
        return Path(self.folder) / f"{self.who.replace(' ', '-')}.npy"


# What SimpleStream looks at.
RECENT_FRAMES = 4


class OwnStream:
    """A session over the checkpoint, loaded as the player loads it."""

    def __init__(
        self, config: BenchConfig, folder: Path, dtype: "mx.Dtype", recompute: bool, clock: Callable[[], float]
    ) -> None:
        """Load the checkpoint.

        Args:
            config: of the benchmark.
            folder: the checkpoint.
            dtype: of the computations.
            recompute: whether to keep no cache and to prefill the last frames anew every second, as SimpleStream does.
            clock: returns seconds.
        """
        from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
        from streaming_vlm_mlx.stream.generate import SecondRequest, Session
        from streaming_vlm_mlx.stream.runner import Runner
        from streaming_vlm_mlx.stream.sampling import TokenSampler

        self._make_request, self._make_session, self._make_sampler = SecondRequest, Session, TokenSampler
        self._make_runner = Runner
        self._config, self._clock = config, clock
        stream = recent_frames_only(config.stream) if recompute else replace(config.stream, mode="streaming")
        sampling = replace(
            stream.sampling,
            max_new_tokens=len(forced_tokens(config, 0)),
            # What ends a reply early would end a forced one too.
            max_words=None,
            max_sentences=None,
            no_repeat_ngram_size=0,
            repetition_window=0.0,
        )
        self._stream = replace(stream, sampling=sampling)
        _, bundle = bundle_loader(folder, dtype, self._stream)(lambda _: None)
        self._bundle = bundle
        self._session = self._make_session(bundle, self._stream)

    def reset(self) -> None:
        """Begin a new stream."""
        self._session = self._make_session(self._bundle, self._stream)

    def second(self, index: int, tokens: Sequence[int]) -> Spoken:
        """Generate `tokens` in second `index`."""
        patches = patches_of(self._config, index)
        silence = int(self._bundle.vocabulary.to_rows([self._bundle.template.silence_id])[0])
        sampler = _Forced(tokens, self._make_sampler(self._stream.sampling, silence), self._clock)
        begun = self._clock()
        request = self._make_request(index, float(index), index + 1.0, patches)
        for _ in self._session.generate(request, sampler, sampler.note_time):
            pass
        done = self._clock()
        cost = SecondCost(done - begun, sampler.first_at - begun, sampler.last_at - begun, sampler.count)
        return Spoken(cost, np.stack([_log_softmax(np.array(kept)) for kept in (sampler.first, sampler.last)]))

    def prefill(self, tokens: Sequence[int]) -> float:
        """Prefill a prompt of text; see `PeerStream.prefill`."""
        rows, count = self._bundle.vocabulary.to_rows(np.array(tokens)), len(tokens)
        runner = self._make_runner(self._bundle.model, count, keep_unrotated=True)
        begun = self._clock()
        places = np.broadcast_to(np.arange(count), (3, count))
        int(runner.prefill(rows, places, None, np.zeros(count, np.bool_)).argmax())
        return self._clock() - begun


def recent_frames_only(config: StreamConfig) -> StreamConfig:
    """Return `config` without a cache and a memory: the seconds with the last `RECENT_FRAMES` frames, read anew."""
    seconds = max(round(RECENT_FRAMES / config.fps), 1)
    return replace(config, mode="recompute", window=seconds, text_round=seconds, sink=0, slide=0)


class _Forced:
    """Samples as a viewer's stream does, and then answers with given tokens."""

    def __init__(self, tokens: Sequence[int], own: "TokenSampler", clock: Callable[[], float]) -> None:
        self._tokens, self._own, self._clock = tokens, own, clock
        self.first: mx.array | None = None
        self.last: mx.array | None = None
        self.first_at, self.last_at, self.count = 0.0, 0.0, 0

    def sample(self, logits: "mx.array", seen: "Rows", step: int) -> "Choice":
        """Return the given token once its own is computed; see `Sampler.sample`."""
        chosen, given = self._own.sample(logits, seen, step), self._tokens[step]
        self.first, self.last = logits if self.first is None else self.first, logits
        return given if isinstance(chosen, int) else 0 * chosen + given

    def note_time(self) -> bool:
        """Note the time at which a token was read; a session asks here behind each whether to stop."""
        self.last_at = self._clock()
        self.first_at = self.first_at if self.count else self.last_at
        self.count += 1
        return False


def _log_softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    wide = scores.astype(np.float64)
    wide -= wide.max()
    out: npt.NDArray[np.float32] = (wide - np.log(np.exp(wide).sum())).astype(np.float32)
    return out


class TransformersStream:
    """The model of a checkpoint in PyTorch, generating greedily with transformers' cache.

    It calls the model itself: `generate` costs more a token.
    """

    def __init__(
        self, config: BenchConfig, folder: Path, dtype: str, keep_cache: bool, clock: Callable[[], float]
    ) -> None:
        """Load the checkpoint.

        Args:
            config: of the benchmark.
            folder: the checkpoint.
            dtype: of the computations on a GPU; a CPU computes in float32.
            keep_cache: whether the cache of all seconds is kept; otherwise each second reads the last ones anew.
            clock: returns seconds.
        """
        import torch
        import transformers

        self._torch, self._new_cache = torch, transformers.DynamicCache
        self._config, self._keep_cache, self._clock = config, keep_cache, clock
        self.device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        self._dtype = torch.float32 if self.device == "cpu" else getattr(torch, dtype)
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=self._dtype)
        self._model = model.to(self.device).eval()
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._conversation = Conversation(self._config, None if self._keep_cache else self._config.stream.window)
        self._cache = self._new_cache()

    def second(self, index: int, tokens: Sequence[int]) -> Spoken:  # noqa: ARG002 - the conversation counts
        """Generate `tokens` in second `index`."""
        if not self._keep_cache:
            self._cache = self._new_cache()
        prompt = self._conversation.prompt(self._cache.get_seq_length())
        inputs = self._inputs(prompt)
        with self._torch.inference_mode():
            begun = self._clock()
            first = logits = self._forward(**inputs)
            first_at = self._clock()
            for step, token in enumerate(tokens[:-1]):
                at = self._torch.full((3, 1, 1), prompt.next_position + step, device=self.device)
                logits = self._forward(input_ids=self._torch.tensor([[token]], device=self.device), position_ids=at)
            done = self._clock()
            scores = self._torch.stack([first, logits]).float().log_softmax(-1).cpu().numpy()
        self._conversation.answer(tokens)
        return Spoken(SecondCost(done - begun, first_at - begun, done - begun, len(tokens)), scores)

    def prefill(self, tokens: Sequence[int]) -> float:
        """Prefill a prompt of text; see `PeerStream.prefill`."""
        kept, self._cache = self._cache, self._new_cache()
        with self._torch.inference_mode():
            begun = self._clock()
            self._forward(input_ids=self._torch.tensor([tokens], device=self.device))
            done = self._clock()
        self._cache = kept
        return done - begun

    def _forward(self, **inputs: Any) -> Any:
        """Append `inputs` to the cache; return the last token's logits after choosing from them, as a viewer's program.

        The given token takes the place of the chosen one.
        """
        out = self._model(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        logits = out.logits[0, -1]
        int(logits.argmax())
        return logits

    def _inputs(self, prompt: Prompt) -> dict[str, Any]:
        """Return the arguments of the model that its processor would make."""
        tensor = self._torch.from_numpy
        return {
            "input_ids": tensor(prompt.ids.astype(np.int64))[None].to(self.device),
            "position_ids": tensor(prompt.positions)[:, None].to(self.device),
            "pixel_values_videos": tensor(prompt.pixel_values).to(self.device, self._dtype),
            "video_grid_thw": tensor(prompt.grids).to(self.device),
        }


class MlxVlmStream:
    """The model of a checkpoint in mlx-vlm, generating with `generate_step`, which its commands use."""

    def __init__(self, config: BenchConfig, folder: Path, keep_cache: bool, clock: Callable[[], float]) -> None:
        """Load the checkpoint in its own dtype.

        Args:
            config: of the benchmark.
            folder: the checkpoint.
            keep_cache: whether the cache of all seconds is kept; otherwise each second reads the last ones anew.
            clock: returns seconds.
        """
        import mlx.core as mx
        from mlx_vlm.generate import generate_step
        from mlx_vlm.models.cache import make_prompt_cache
        from mlx_vlm.utils import load_model

        self._mx, self._generate, self._make_cache = mx, generate_step, make_prompt_cache
        self._config, self._keep_cache, self._clock = config, keep_cache, clock
        self._model = load_model(folder)
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._conversation = Conversation(self._config, None if self._keep_cache else self._config.stream.window)
        self._cache = self._make_cache(self._model.language_model)

    def second(self, index: int, tokens: Sequence[int]) -> Spoken:  # noqa: ARG002 - the conversation counts
        """Generate `tokens` in second `index`."""
        if not self._keep_cache:
            self._cache = self._make_cache(self._model.language_model)
        mx, cached = self._mx, self._cache[0].offset
        prompt = self._conversation.prompt(cached)
        ids, pixels, grids = mx.array(prompt.ids)[None], mx.array(prompt.pixel_values), mx.array(prompt.grids)
        mx.eval(ids, pixels, grids)
        # Without them, it counts the positions of new video from 0.
        places = self._positions(prompt, cached) if self._keep_cache else {}
        left = iter(tokens)

        def force(scores: Any) -> Any:
            # The choice of a viewer's program, before the given token takes its place.
            return 0 * mx.argmax(scores, axis=-1) + next(left, tokens[-1])

        begun = self._clock()
        steps = self._generate(
            ids,
            self._model,
            pixels,
            None,
            max_tokens=len(tokens),
            prompt_cache=self._cache,
            sampler=force,
            video_grid_thw=grids,
            **places,
        )
        kept: list[Any] = []
        times: list[float] = []
        for _, scores in steps:
            times.append(self._clock())
            kept = [*kept[:1], scores]
        # It computes the step behind the last token too; only a cache that is kept needs it.
        mx.synchronize()
        done = self._clock() if self._keep_cache else times[-1]
        self._conversation.answer(tokens)
        cost = SecondCost(done - begun, times[0] - begun, times[-1] - begun, len(times))
        return Spoken(cost, np.array(mx.stack([kept[0], kept[-1]]).astype(mx.float32)))

    def prefill(self, tokens: Sequence[int]) -> float:
        """Prefill a prompt of text; see `PeerStream.prefill`."""
        cache = self._make_cache(self._model.language_model)
        ids = self._mx.array([tokens])
        begun = self._clock()
        next(iter(self._generate(ids, self._model, None, None, max_tokens=1, temperature=0.0, prompt_cache=cache)))
        done = self._clock()
        self._mx.synchronize()
        return done - begun

    def _positions(self, prompt: Prompt, cached: int) -> "dict[str, mx.array]":
        """Return the arguments that place `prompt` behind `cached` tokens, whose own positions are not read."""
        whole = np.pad(prompt.positions, ((0, 0), (cached, 0)))
        behind = prompt.next_position - whole.shape[1]
        return {"position_ids": self._mx.array(whole)[:, None], "rope_deltas": self._mx.array([[behind]])}


class PeerStream(Protocol):
    """A program's stream over the checkpoint."""

    def reset(self) -> None:
        """Begin a new stream."""

    def second(self, index: int, tokens: Sequence[int]) -> Spoken:
        """Generate `tokens` in second `index`."""

    def prefill(self, tokens: Sequence[int]) -> float:
        """Return the seconds that a prompt of text takes in a cache of its own, until its last token is chosen from."""


def open_stream(spec: WorkerSpec, clock: Callable[[], float]) -> PeerStream:
    """Load the checkpoint into the program of the row.

    mlx-vlm gets the BLAS that this program puts under MLX: what is compared is the program, not MLX's wheel.
    """
    folder = Path(spec.folder)
    program, _, kind = spec.who.partition(" ")
    if program == "transformers":
        return TransformersStream(spec.config, folder, spec.dtype, kind == "cache", clock)
    from streaming_vlm_mlx.backend import prepare

    dtype = prepare().dtype
    if program == "mlx-vlm":
        return MlxVlmStream(spec.config, folder, kind == "cache", clock)
    return OwnStream(spec.config, folder, dtype, kind == "recompute", clock)


class Worker:
    """Answers ``load``, ``warm-up`` with the tokens of `WARM_UP` seconds, ``prefill``, and ``second`` by ``second``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin without a stream; `clock` returns seconds."""
        self._clock = clock
        self._streams: dict[str, tuple[WorkerSpec, PeerStream]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request."""
        who, do = request["who"], request["do"]
        if do == "load":
            spec = WorkerSpec.from_dict(request["spec"])
            self._streams[who] = spec, open_stream(spec, self._clock)
            return {}
        spec, stream = self._streams[who]
        if do == "warm-up":
            np.save(spec.scores, np.stack([stream.second(i, t).scores for i, t in enumerate(request["tokens"])]))
            stream.reset()
            return {}
        if do == "prefill":
            return {"seconds": stream.prefill(request["tokens"])}
        cost = stream.second(request["index"], request["tokens"]).cost
        return asdict(replace(cost, peak_rss=peak_memory()))


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer the lines on stdin until it is closed; what the programs print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever stops a program leaves only its row out
            reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    serve(Worker(time.perf_counter).answer)
