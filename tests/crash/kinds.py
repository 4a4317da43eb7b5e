"""What is interrupted: the commands, and what each of them promises."""

import hashlib
import json
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import yaml
from safetensors import safe_open

from streaming_vlm_mlx.sessions.journal import load_session
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.sessions.subtitles import FORMATS
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.train.metrics import read_metrics
from tests.crash.assets import OWNER_NAME, TRAINING_STEPS, Assets
from tests.crash.interrupting import Blow, Command, Outcome
from tests.hub_server import etag

KILLS: tuple[Blow, ...] = ("SIGKILL", "SIGTERM", "SIGINT")
STATUSES: Mapping[Blow, int] = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "ctrl-c": 0, "hangup": 129}
Files = dict[str, bytes]


@dataclass
class Clean:
    """What a run that nobody interrupts does, and the files that it leaves."""

    outcome: Outcome
    files: Files = field(default_factory=dict)


class Kind(ABC):
    """A command that is interrupted.

    Attributes:
        name: for the option ``--kind``.
        blows: what may happen to it.
        variants: ways to call it.
        short: how many of the variants a short run tries.
    """

    name: ClassVar[str]
    blows: ClassVar[tuple[Blow, ...]] = KILLS
    variants: ClassVar[tuple[str, ...]] = ("",)
    short: ClassVar[int] = 1

    def __init__(self, assets: Assets) -> None:
        """Use `assets`."""
        self.assets = assets

    @abstractmethod
    def lay_out(self, folder: Path, variant: str) -> Command:
        """Put what is there before into the new `folder`, and return the command to interrupt."""

    @abstractmethod
    def check(self, folder: Path, outcome: Outcome, blow: Blow, clean: Clean, variant: str) -> None:
        """Check what was promised to be there after an interrupted run.

        Raises:
            AssertionError: it is not.
        """

    def resume(self, folder: Path, variant: str) -> Sequence[Command]:
        """Return the commands that finish the work; one is tried after the other until one succeeds."""
        return [self.command(folder, variant)]

    @abstractmethod
    def command(self, folder: Path, variant: str) -> Command:
        """Return the command."""

    def check_resumed(self, folder: Path, outcome: Outcome, clean: Clean, variant: str) -> None:
        """Check that the folder is as a run leaves it that nobody interrupted.

        Raises:
            AssertionError: it is not.
        """
        assert files_in(folder) == clean.files

    def environ(self, folder: Path) -> dict[str, str]:
        """Return the variables of a run in `folder`."""
        return {"XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache")}


def files_in(folder: Path) -> Files:
    """Return the files in `folder` and below, but for the program's state and cache."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return {n: p.read_bytes() for n, p in zip(names, paths, strict=True) if n.split("/")[0] not in ("state", "cache")}


def allowed_statuses(outcome: Outcome, blow: Blow) -> set[int]:
    """Return the statuses that a run may end with."""
    if not outcome.struck:
        return {0}
    # Before its first lines run, a program has the system's own handlers.
    if blow == "SIGTERM" and not has_begun(outcome):
        return {STATUSES[blow], 0, -signal.SIGTERM}
    # Nobody reads the status, or an error, when the terminal is gone; a player that has left it gets a key as a signal.
    also = {"hangup": {1, 2, -signal.SIGHUP}, "ctrl-c": {STATUSES["SIGINT"]}}
    return {STATUSES[blow], 0} | also.get(blow, set())


def has_begun(outcome: Outcome) -> bool:
    """Return whether a run did anything that can be seen."""
    return bool(outcome.changes or outcome.out or outcome.err)


def check_end(outcome: Outcome, blow: Blow, clean: Clean) -> None:
    """Check the status of a run, and that it says no more than a person wants to read."""
    status, said = outcome.ended.status, outcome.err.decode("utf-8", "replace")
    assert status in allowed_statuses(outcome, blow), f"status {status}: {said[-500:]}"
    assert "Traceback" not in said
    assert "internal error" not in said
    if status in (130, 143) and has_begun(outcome) and said != clean.outcome.err.decode("utf-8", "replace"):
        # One that has not begun, or has done all of its work, has nothing to say of that.
        assert said.endswith("svm-tui: stopped.\n"), said[-500:]


def check_whole(path: Path, old: bytes | None, new: bytes) -> None:
    """Check that a file is as it was, or new and whole."""
    found = path.read_bytes() if path.is_file() else None
    assert found in (old, new), f"{path.name} is neither the old file nor the new one"


def journals(folder: Path) -> list[Path]:
    """Return the journals in the state folder, but for one whose session ended before its first second."""
    return sorted(path for path in (folder / "state").rglob("*.jsonl") if path.stat().st_size)


class Infer(Kind):
    """``infer --out`` keeps every second that it printed: in the file, or in a journal."""

    name = "infer"
    variants = (".json", ".vtt", ".srt", ".txt")

    def lay_out(self, folder: Path, variant: str) -> Command:
        """Put the clip there, and an earlier commentary on it."""
        shutil.copy(self.assets.clip, folder / "clip.mp4")
        (folder / f"game{variant}").write_text(self._old(variant))
        return self.command(folder, variant)

    def command(self, folder: Path, variant: str) -> Command:
        """Return the command."""
        words = (
            "infer",
            "clip.mp4",
            "--ckpt",
            str(self.assets.ckpt),
            "--json",
            "--seed",
            "3",
            "--out",
            f"game{variant}",
        )
        return Command(words, folder, self.environ(folder))

    def check(self, folder: Path, outcome: Outcome, blow: Blow, clean: Clean, variant: str) -> None:
        """Check the file and the journal."""
        check_end(outcome, blow, clean)
        heard, seconds = len(outcome.lines), _seconds(clean.outcome)
        out = folder / f"game{variant}"
        written = None if out.read_text() == self._old(variant) else _count(out, seconds)
        kept = [_count(path, seconds) for path in journals(folder)]
        assert max([written or 0, *kept]) >= heard
        if outcome.ended.status in (0, 130, 143) and written is not None:
            assert not kept

    def check_resumed(self, folder: Path, outcome: Outcome, clean: Clean, variant: str) -> None:
        """Check the file, and that no other is left."""
        assert sorted(files_in(folder)) == sorted(clean.files)
        assert _count(folder / f"game{variant}", _seconds(clean.outcome)) == len(clean.outcome.lines)

    def _old(self, variant: str) -> str:
        earlier = GenerationResult(0, 0.0, 1.0, "an earlier session")
        return FORMATS[variant](SessionRecord(clip="clip.mp4", seconds=(earlier,)), False)


def _seconds(outcome: Outcome) -> tuple[GenerationResult, ...]:
    return tuple(GenerationResult.from_dict(json.loads(line)) for line in outcome.lines)


def _count(path: Path, seconds: Sequence[GenerationResult]) -> int:
    """Return how many of `seconds` the session at `path` holds, from the first on.

    Raises:
        AssertionError: the file holds something else.
    """
    if path.suffix in (".json", ".jsonl"):
        found = [(s.start, s.end, s.text) for s in load_session(path).seconds]
        assert found == [(s.start, s.end, s.text) for s in seconds[: len(found)]]
        return len(found)
    content = path.read_text()
    for count in range(len(seconds) + 1):
        if content == FORMATS[path.suffix](SessionRecord(clip="clip.mp4", seconds=tuple(seconds[:count])), False):
            return count
    raise AssertionError(f"{path.name} is not whole")


class Convert(Kind):
    """``convert`` goes on where it was, and its result is the same, byte for byte."""

    name = "convert"
    variants = ("new", "old", "anew")

    def lay_out(self, folder: Path, variant: str) -> Command:
        """Put annotations there, a clip, and, for ``old``, an earlier result."""
        for path in (self.assets.annotations, self.assets.annotations_index):
            shutil.copy(path, folder)
        shutil.copy(self.assets.clip, folder / "clip.mp4")
        if variant == "old":
            shutil.copy(self.assets.records, folder / "out.jsonl")
        return self.command(folder, variant)

    def command(self, folder: Path, variant: str) -> Command:
        """Return the command."""
        words = ("convert", self.assets.annotations.name, "--out", "out.jsonl")
        return Command(words, folder, self.environ(folder))

    def check(self, folder: Path, outcome: Outcome, blow: Blow, clean: Clean, variant: str) -> None:
        """Check the result."""
        check_end(outcome, blow, clean)
        old = self.assets.records.read_bytes() if variant == "old" else None
        check_whole(folder / "out.jsonl", old, clean.files["out.jsonl"])

    def resume(self, folder: Path, variant: str) -> Sequence[Command]:
        """Return the same command, with ``--resume`` but for ``anew``."""
        again = self.command(folder, variant)
        return [again if variant == "anew" else Command((*again.words, "--resume"), folder, again.environ)]

    def check_resumed(self, folder: Path, outcome: Outcome, clean: Clean, variant: str) -> None:
        """Check the result and that nothing else is left but the note that it is finished."""
        found = files_in(folder)
        assert sorted(found) == sorted(clean.files)
        assert found["out.jsonl"] == clean.files["out.jsonl"]


class ConvertCheckpoint(Kind):
    """``convert-ckpt`` leaves a whole folder or none."""

    name = "convert-ckpt"

    def lay_out(self, folder: Path, variant: str) -> Command:
        """Return the command; there is nothing before."""
        return self.command(folder, variant)

    def command(self, folder: Path, variant: str) -> Command:
        """Return the command."""
        words = ("convert-ckpt", str(self.assets.ckpt), "small", "--bits", "4", "--group-size", "32", "--keep-vision")
        return Command(words, folder, self.environ(folder))

    def check(self, folder: Path, outcome: Outcome, blow: Blow, clean: Clean, variant: str) -> None:
        """Check the folder."""
        check_end(outcome, blow, clean)
        found = {name: data for name, data in files_in(folder).items() if name.startswith("small/")}
        assert found in ({}, clean.files), sorted(found)
        if outcome.ended.status != -9:
            assert files_in(folder) == found

    def resume(self, folder: Path, variant: str) -> Sequence[Command]:
        """Return the same command where it is not done yet."""
        return [] if (folder / "small").is_dir() else [self.command(folder, variant)]


class Train(Kind):
    """``train`` resumes from its newest checkpoint, and ends with the same weights."""

    name = "train"
    variants = ("keep all", "keep one")

    def lay_out(self, folder: Path, variant: str) -> Command:
        """Put the settings there."""
        shutil.copytree(self.assets.training, folder, dirs_exist_ok=True)
        settings = yaml.safe_load((folder / "run.yaml").read_text())
        settings["checkpointing"] = {"every": 2, "keep": 1 if variant == "keep one" else 9}
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        return self.command(folder, variant)

    def command(self, folder: Path, variant: str) -> Command:
        """Return the command."""
        return Command(("train", "--config", "run.yaml", "--out", "run"), folder, self.environ(folder))

    def check(self, folder: Path, outcome: Outcome, blow: Blow, clean: Clean, variant: str) -> None:
        """Check that every checkpoint that counts is whole, and that a run which was told to end says how to go on."""
        status, said = outcome.ended.status, outcome.err.decode()
        assert status in allowed_statuses(outcome, blow), said[-500:]
        assert "Traceback" not in said
        run = folder / "run"
        steps = [path for path in (run / "steps").glob("*") if path.name.isdigit()]
        assert len(steps) - (2 if variant == "keep one" else 9) <= 0
        for checkpoint in [run, *steps]:
            for path in checkpoint.rglob("*.safetensors"):
                if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                    read_tensors(path)
        for checkpoint in steps:
            assert json.loads((checkpoint / "training" / "state.json").read_text())["step"] == int(checkpoint.name)
        if status in (130, 143) and "stopped and saved at step" in said:
            assert steps

    def resume(self, folder: Path, variant: str) -> Sequence[Command]:
        """Return the command to go on, and for a run that ended before it wrote anything, the first one."""
        first = self.command(folder, variant)
        return [Command(("train", "--out", "run", "--resume"), folder, first.environ), first]

    def check_resumed(self, folder: Path, outcome: Outcome, clean: Clean, variant: str) -> None:
        """Check the weights, the checkpoints and the metrics."""
        found = files_in(folder)
        name = "run/model.safetensors"
        assert found[name] == clean.files[name]
        # A run that was told to end has saved one more checkpoint.
        kept = {n for n in found if "/steps/" not in n}
        assert kept == {n for n in clean.files if "/steps/" not in n}
        assert not [n for n in found if "/." in n]
        steps = [line["step"] for line in read_metrics(folder / "run" / "metrics.jsonl") if "losses" in line]
        assert steps == list(range(1, TRAINING_STEPS + 1))


def read_tensors(path: Path) -> None:
    """Read all tensors of a file."""
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            file.get_tensor(name)


class Fetch(Kind):
    """A download goes on where it was, and no file has its name before it is whole."""

    name = "fetch"

    def lay_out(self, folder: Path, variant: str) -> Command:
        """Put the clip there."""
        shutil.copy(self.assets.clip, folder / "clip.mp4")
        self.assets.hub.asked.clear()
        return self.command(folder, variant)

    def command(self, folder: Path, variant: str) -> Command:
        """Return the command."""
        words = ("infer", "clip.mp4", "--ckpt", OWNER_NAME, "--duration", "1")
        environ = {"HF_ENDPOINT": self.assets.hub.url, "HF_HOME": str(folder / "hub"), "HF_TOKEN": ""}
        return Command(words, folder, {**self.environ(folder), **environ})

    def check(self, folder: Path, outcome: Outcome, blow: Blow, clean: Clean, variant: str) -> None:
        """Check each blob against its name, each link, and the branch."""
        check_end(outcome, blow, clean)
        self._before = set(self._whole(folder))
        self.assets.hub.asked.clear()

    def _whole(self, folder: Path) -> Iterator[str]:
        """Yield the names of the files that are there, after a look at all of them."""
        repo = self.assets.hub.repos[OWNER_NAME]
        commit = repo.refs["main"]
        for blob in folder.rglob("blobs/*"):
            if blob.suffix != ".incomplete":
                content = blob.read_bytes()
                assert blob.name in (hashlib.sha256(content).hexdigest(), etag("", content)), blob.name
        for reference in folder.rglob("refs/*"):
            assert reference.read_text() == commit
        for link in folder.rglob(f"snapshots/{commit}/*"):
            assert link.read_bytes() == repo.commits[commit][link.name]
            yield link.name

    def check_resumed(self, folder: Path, outcome: Outcome, clean: Clean, variant: str) -> None:
        """Check that all is there, and that only what was missing has been asked for."""
        found = files_in(folder)
        assert sorted(n for n in found if ".locks" not in n) == sorted(n for n in clean.files if ".locks" not in n)
        assert sorted(self._whole(folder)) == sorted(set(clean_names(clean)))
        assert not self._before & set(self.assets.hub.files_asked)


def clean_names(clean: Clean) -> Iterator[str]:
    """Yield the names of the files of a snapshot."""
    for name in clean.files:
        if "/snapshots/" in name:
            yield name.rpartition("/")[2]
