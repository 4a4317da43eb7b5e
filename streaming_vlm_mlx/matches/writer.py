"""Film simulated matches, and write their truth and their annotation files."""

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
from streaming_vlm_mlx.matches.match_truth import TEST_SEEDS, Question, Truth, write_truth


class Match(Protocol):
    """A stretch of one match. Its seed determines all of it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    @property
    def fps(self) -> int:
        """Frames a second."""

    @property
    def crf(self) -> int:
        """H.264's constant rate factor of the clip; higher is coarser."""

    def truth(self, video: str) -> Truth:
        """Return the truth of the clip whose file name is `video`."""

    def words(self, paraphrase: int) -> Sequence[Word]:
        """Return the commentary number `paraphrase`: the same play in other words; 0 is that of the truth."""

    def frames(self) -> Iterator[Pixels]:
        """Yield the frames in order: uint8 [height, width, 3], RGB."""


class Sport(Protocol):
    """Makes the matches of one sport."""

    @property
    def name(self) -> str:
        """One word: the sidecar's ``sport`` and the annotation's title."""

    def match(self, seed: int, seconds: float) -> Match:
        """Return `seconds` of match `seed`; the same arguments give the same match."""

    def questions(self, truth: Truth, every: float) -> Sequence[Question]:
        """Return a viewer's questions, one in `every` seconds, with answers that the pictures show."""

    def descriptions(self, truth: Truth) -> Sequence[Question]:
        """Return for every second the question what it shows, with a complete answer."""

    def targets(self, truth: Truth) -> Mapping[str, npt.NDArray[Any]]:
        """Return the vision targets of each frame: the arrays of ``.targets.npz``."""


ANNOTATIONS, INDEX = "matches_with_seeks.jsonl", "matches_seeks.jsonl"
DESCRIPTIONS, DESCRIPTIONS_INDEX = "descriptions_with_seeks.jsonl", "descriptions_seeks.jsonl"
SHORTEST, LONGEST = 1.0, 3600.0
# Seconds between two questions of a viewer.
EVERY = 12.0


@dataclass(frozen=True, slots=True)
class Made:
    """A match on disk.

    Attributes:
        clip: the video; its sidecar has the same name.
        annotations: its lines for the annotation file, one a paraphrase.
        descriptions: its lines for the file of descriptions, one a paraphrase.
        events: number of events.
        words: number of words.
        new: filmed now; False if the clip existed.
    """

    clip: Path
    annotations: tuple[str, ...]
    descriptions: tuple[str, ...]
    events: int
    words: int
    new: bool


def check(seeds: Sequence[int], seconds: float, workers: int, every: float = EVERY, paraphrases: int = 1) -> None:
    """Check the options.

    Raises:
        SvmError: names the option that is out of range.
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
            f"seeds {min(seeds)} to {max(seeds)} mix training with testing, which starts at {TEST_SEEDS}: "
            "make two folders."
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

    Both annotation files are written at the end, or when the caller stops; they keep the lines of other clips. A clip
    with an up-to-date sidecar is not filmed again. With several `paraphrases`, each match has that many lines: the
    same play in other words.

    Raises:
        SvmError: an option is out of range (see `check`), the folder cannot be written, or a worker was killed.
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
    """Film one match into `folder` and write its sidecar, unless both exist.

    Raises:
        SvmError: the folder cannot be written, or the disk is full.
    """
    clip = folder / f"match_{seed:06d}.mp4"
    sidecar = clip.with_suffix(".truth.json")
    match = sport.match(seed, seconds)
    truth = match.truth(clip.name)
    new = not (clip.is_file() and sidecar.is_file() and sidecar.read_text(encoding="utf-8") == truth.to_json() + "\n")
    if new:
        # The sidecar is written last: if it exists, its clip is complete.
        sidecar.unlink(missing_ok=True)
        write_clip(clip, match.frames(), match.size, match.fps, match.crf)
    with replacing(clip.with_suffix(".targets.npz")) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **sport.targets(truth))
    if new:
        write_truth(sidecar, truth)
    paraphrased = [match.words(number) for number in range(paraphrases)]
    asked = sport.questions(truth, every)
    # As in a stream, a viewer's question replaces the description of its second.
    seen = tuple({floor(question[0]): question for question in (*sport.descriptions(truth), *asked)}.values())
    return Made(
        clip=clip,
        annotations=tuple(json.dumps(conversation(truth, words, asked)) for words in paraphrased),
        descriptions=tuple(json.dumps(conversation(truth, words, seen)) for words in paraphrased),
        events=len(truth.events),
        words=len(truth.words),
        new=new,
    )


def conversation(truth: Truth, words: Sequence[Word], questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Return a match as StreamingVLM's annotation files hold it: a user turn, and streams of words and answers."""
    video = {"type": "video", "video": truth.video, "video_start": 0.0, "video_end": truth.seconds}
    query = {"type": "text", "text": StreamConfig().query, "previous": "", "title": truth.sport.capitalize()}
    spoken = [[w.start, w.end, w.text] for w in words]
    stream = {"type": "text_stream", "text_stream": spoken, "qa_stream": [list(q) for q in questions]}
    return [{"role": "user", "content": [video, query]}, {"role": "assistant", "content": [stream]}]


def write_annotations(path: Path, index: Path, lines: dict[str, tuple[str, ...]]) -> None:
    """Add `lines`, by clip name, to an annotation file and write its index; clips are sorted by name.

    Raises:
        SvmError: the folder cannot be written, or the existing file is not an annotation file of matches.
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
    """Return the lines of an annotation file by clip name."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            video = json.loads(line)[0]["content"][0]["video"]
            found[video] = (*found.get(video, ()), line)
        return found
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SvmError(
            f"{path} is not an annotation file of matches; move it away or choose another folder."
        ) from error


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
            raise SvmError("a worker was killed, perhaps because memory ran out: use fewer --workers.") from error
        finally:
            for job in jobs:
                job.cancel()


def _obey() -> None:
    """Leave Ctrl-C to the parent, which waits for films under way; exit if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        # A pool's worker only waits for work: an exception in this thread would not end it.
        os._exit(1)
