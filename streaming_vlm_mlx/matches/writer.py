"""What a sport must give to be filmed."""

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from math import floor
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.atomic import replacing, write_text
from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.text_metrics import Word
from streaming_vlm_mlx.matches.camera import Pixels, write_clip
from streaming_vlm_mlx.matches.truth import TEST_SEEDS, Question, Truth, write_truth


class Match(Protocol):
    """A stretch of one match, all of it decided by its seed."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    @property
    def fps(self) -> int:
        """Frames a second."""

    @property
    def crf(self) -> int:
        """How coarsely the clip is to be compressed: H.264's constant rate factor."""

    def truth(self, video: str) -> Truth:
        """Return commentary, events and what is where in each frame; `video` is the clip's file name."""

    def words(self, telling: int) -> Sequence[Word]:
        """Return commentary; each number `telling` from 0 on tells the same play in other words, 0 as in the truth."""

    def frames(self) -> Iterator[Pixels]:
        """Yield the pictures in order: uint8 [height, width, 3], RGB."""


class Sport(Protocol):
    """Makes matches."""

    @property
    def name(self) -> str:
        """One word, as in the sidecar's ``sport`` and the annotation's title."""

    def match(self, seed: int, seconds: float) -> Match:
        """Return `seconds` of the match that belongs to `seed`; the same arguments give the same match."""

    def questions(self, truth: Truth, every: float) -> Sequence[Question]:
        """Return what a viewer asks about a match, once in `every` seconds, with answers that can be seen."""

    def descriptions(self, truth: Truth) -> Sequence[Question]:
        """Return a question what there is to see for every second, with an answer that names all of it."""

    def targets(self, truth: Truth) -> Mapping[str, npt.NDArray[Any]]:
        """Return what each picture of a match shows: the arrays of its ``.targets.npz``."""


ANNOTATIONS, INDEX = "matches_with_seeks.jsonl", "matches_seeks.jsonl"
DESCRIPTIONS, DESCRIPTIONS_INDEX = "descriptions_with_seeks.jsonl", "descriptions_seeks.jsonl"
SHORTEST, LONGEST = 1.0, 3600.0
# Seconds from one question of a viewer to the next.
EVERY = 12.0


@dataclass(frozen=True, slots=True)
class Made:
    """A match that is on disk.

    Attributes:
        clip: its video; the sidecar lies beside it.
        annotations: its lines for the annotation file, one a telling.
        descriptions: its lines for the file of sights, likewise.
        events: how many events it has.
        words: how many words are said.
        new: False where it was there before.
    """

    clip: Path
    annotations: tuple[str, ...]
    descriptions: tuple[str, ...]
    events: int
    words: int
    new: bool


def check(seeds: Sequence[int], seconds: float, workers: int, every: float = EVERY, paraphrases: int = 1) -> None:
    """Refuse what cannot be made.

    Raises:
        SvmError: names the option that is off.
    """
    if not seeds:
        raise SvmError("--count must be at least 1.")
    if workers < 1:
        raise SvmError(f"--workers is {workers}; it must be at least 1.")
    if not SHORTEST <= seconds <= LONGEST:
        raise SvmError(f"--seconds is {seconds:g}; a match lasts between {SHORTEST:g} and {LONGEST:g}.")
    if every < 1:
        raise SvmError(f"--ask is {every:g}; a second has room for one question, so it must be 1 or more.")
    if paraphrases < 1:
        raise SvmError(f"--paraphrases is {paraphrases}; it must be at least 1.")
    if min(seeds) < 0:
        raise SvmError(f"--seed is {min(seeds)}; it must not be negative.")
    if min(seeds) < TEST_SEEDS <= max(seeds):
        raise SvmError(
            f"seeds {min(seeds)} to {max(seeds)} mix training with testing, which begins at {TEST_SEEDS}: "
            "make them in two folders."
        )


def check_test_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds of matches that a model may have been trained on.

    Raises:
        SvmError: names the first seed that may be used.
    """
    if min(seeds, default=TEST_SEEDS) < TEST_SEEDS:
        raise SvmError(
            f"--seed is {min(seeds)}; matches below {TEST_SEEDS} are for training. Validate on matches from "
            f"{TEST_SEEDS} on, or name others with --records."
        )


def make_matches(
    folder: Path,
    sport: Sport,
    seeds: Sequence[int],
    seconds: float,
    workers: int = 1,
    every: float = EVERY,
    paraphrases: int = 1,
) -> Iterator[Made]:
    """Yield the matches of `seeds` as they are finished.

    Both annotation files are written at the end, or when the caller stops. A match whose clip is there, beside the
    sidecar that would be written now, is not filmed again. Lines of other clips that they already have are
    kept. With several `paraphrases` a match has as many lines there, the same play told in other words.

    Raises:
        SvmError: an argument is off (see `check`), the folder cannot be written, or a worker was killed.
    """
    check(seeds, seconds, workers, every, paraphrases)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SvmError(f"{folder} cannot be made: {error.strerror}. Choose another folder.") from error
    done: list[Made] = []
    try:
        for made in _each(folder, sport, seeds, seconds, workers, every, paraphrases):
            done.append(made)
            yield made
    finally:
        if done:
            write_annotations(folder / ANNOTATIONS, folder / INDEX, {m.clip.name: m.annotations for m in done})
            write_annotations(
                folder / DESCRIPTIONS, folder / DESCRIPTIONS_INDEX, {m.clip.name: m.descriptions for m in done}
            )


def make_match(
    folder: Path, sport: Sport, seed: int, seconds: float, every: float = EVERY, paraphrases: int = 1
) -> Made:
    """Film one match into `folder` and write its sidecar, unless both are there.

    Raises:
        SvmError: the folder cannot be written, or the disk is full.
    """
    clip = folder / f"match_{seed:06d}.mp4"
    sidecar = clip.with_suffix(".truth.json")
    match = sport.match(seed, seconds)
    truth = match.truth(clip.name)
    new = not (clip.is_file() and sidecar.is_file() and sidecar.read_text(encoding="utf-8") == truth.to_json() + "\n")
    if new:
        # The sidecar comes last: where it stands, the clip beside it is whole.
        sidecar.unlink(missing_ok=True)
        write_clip(clip, match.frames(), match.size, match.fps, match.crf)
    with replacing(clip.with_suffix(".targets.npz")) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **sport.targets(truth))
    if new:
        write_truth(sidecar, truth)
    told = [match.words(number) for number in range(paraphrases)]
    asked = sport.questions(truth, every)
    # As in a stream, where a viewer's question takes the place of the model's own.
    seen = tuple({floor(question[0]): question for question in (*sport.descriptions(truth), *asked)}.values())
    return Made(
        clip=clip,
        annotations=tuple(json.dumps(conversation(truth, words, asked)) for words in told),
        descriptions=tuple(json.dumps(conversation(truth, words, seen)) for words in told),
        events=len(truth.events),
        words=len(truth.words),
        new=new,
    )


def conversation(truth: Truth, words: Sequence[Word], questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Return a match as StreamingVLM's annotation files hold it: one user turn, one stream of words and of answers."""
    video = {"type": "video", "video": truth.video, "video_start": 0.0, "video_end": truth.seconds}
    query = {"type": "text", "text": StreamConfig().query, "previous": "", "title": truth.sport.capitalize()}
    spoken = [[w.start, w.end, w.text] for w in words]
    stream = {"type": "text_stream", "text_stream": spoken, "qa_stream": [list(q) for q in questions]}
    return [{"role": "user", "content": [video, query]}, {"role": "assistant", "content": [stream]}]


def write_annotations(path: Path, index: Path, lines: dict[str, tuple[str, ...]]) -> None:
    """Replace an annotation file and its index; `lines` by clip name join those of other clips, sorted by name.

    Raises:
        SvmError: the folder cannot be written, or the file that is there is none of ours.
    """
    merged = dict(sorted({**_annotated(path), **lines}.items()))
    offsets, offset = [], 0
    every = [line for own in merged.values() for line in own]
    for line in every:
        offsets.append(offset)
        offset += len(line.encode()) + 1
    write_text(path, "".join(line + "\n" for line in every))
    write_text(index, json.dumps(offsets))


def _annotated(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the lines of an annotation file by their clip's name."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            video = json.loads(line)[0]["content"][0]["video"]
            found[video] = (*found.get(video, ()), line)
        return found
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SvmError(f"{path} is no annotation file of matches; move it away or choose another folder.") from error


def _each(
    folder: Path, sport: Sport, seeds: Sequence[int], seconds: float, workers: int, every: float, paraphrases: int
) -> Iterator[Made]:
    if workers == 1:
        yield from (make_match(folder, sport, seed, seconds, every, paraphrases) for seed in seeds)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_obey) as pool:
        jobs = [pool.submit(make_match, folder, sport, seed, seconds, every, paraphrases) for seed in seeds]
        try:
            yield from (job.result() for job in as_completed(jobs))
        except BrokenProcessPool as error:
            raise SvmError("a worker was killed, perhaps for want of memory: try fewer --workers.") from error
        finally:
            for job in jobs:
                job.cancel()


def _obey() -> None:
    """Leave Ctrl-C to the parent, which lets films under way end; where it was killed, end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        # A pool's worker waits for work and for nothing else: no exception would end it.
        os._exit(1)
