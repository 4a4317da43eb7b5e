"""``svm-tui infer``: a clip in, commentary out, without a screen."""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from streaming_vlm_mlx.errors import SvmError

if TYPE_CHECKING:
    from streaming_vlm_mlx.config import StreamConfig
    from streaming_vlm_mlx.export.session import SessionRecord
    from streaming_vlm_mlx.stream.engine import Engine
    from streaming_vlm_mlx.stream.events import Event, SecondDone
    from streaming_vlm_mlx.video.source import Source

HELP = "Write a model's commentary on a clip, second by second, to stdout and into a file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("clip", metavar="CLIP", help="a video file, URL or camera (/dev/video0, avfoundation:0)")
    parser.add_argument("--ckpt", metavar="C", help="a folder, a name below checkpoints/, or a hub id")
    parser.add_argument("--out", type=Path, metavar="F", help="file to write: .vtt, .srt, .json or .txt")
    parser.add_argument("--json", action="store_true", help="print a JSON object a second instead of lines of text")
    parser.add_argument("--query", help="what the viewer asks for, in the first second")
    parser.add_argument("--previous", help="what was said before the clip")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="second to begin at (default 0)")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds to watch (default: to the end)")
    parser.add_argument("--fps", type=int, help="frames taken from a second (default: the checkpoint's, else 2)")
    parser.add_argument("--config", type=Path, metavar="F", help="YAML of stream settings, laid over the checkpoint's")
    parser.add_argument("--seed", type=int, help="where random draws begin (default 0)")


def run(args: argparse.Namespace) -> int:
    """Speak about the clip; what was said is written even when the run breaks off."""
    from streaming_vlm_mlx.export.writing import find_format
    from streaming_vlm_mlx.video.source import open_video

    if args.out:
        find_format(args.out)
        check_writable(args.out)
    config, folder = settle(args)
    with open_video(args.clip, config.fps) as source:
        engine, name = make_engine(folder, config)
        keeper = Keeper(args.out, new_record(args.clip, name, config))
        try:
            with keeper.kept():
                asyncio.run(_listen(engine, source, args, keeper))
        finally:
            engine.close()
        if source.skipped:
            print(f"{args.clip}: {source.skipped} corrupt packets were skipped.", file=sys.stderr)
    return 0


def settle(args: argparse.Namespace) -> "tuple[StreamConfig, Path | None]":
    """Return the stream's settings and the checkpoint's folder: the checkpoint's own, then --config, then options."""
    from streaming_vlm_mlx.config import StreamConfig, read_yaml
    from streaming_vlm_mlx.locate import locate, read_stream_config

    folder = locate(args.ckpt) if args.ckpt else None
    config = read_stream_config(folder) if folder else StreamConfig()
    if args.config:
        config = config.merged(read_yaml(args.config))
    named = {k: getattr(args, k) for k in ("query", "previous", "fps") if getattr(args, k) is not None}
    sampling = {} if args.seed is None else {"sampling": {"seed": args.seed}}
    return config.merged({**named, **sampling}), folder


def make_engine(folder: Path | None, config: "StreamConfig") -> "tuple[Engine, str]":
    """Start an engine on the checkpoint in `folder`, or on untrained weights when there is none."""
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.stream.engine import Engine
    from streaming_vlm_mlx.stream.load import from_folder, from_preset

    if machine.advice:
        print(f"svm-tui: {machine.advice}", file=sys.stderr)
    if folder:
        return Engine(from_folder(folder, machine.dtype, config), config), str(folder)
    print(
        "svm-tui: no checkpoint named: the preset's random weights speak, and their words mean nothing. "
        "Name a trained one with --ckpt.",
        file=sys.stderr,
    )
    return Engine(from_preset(machine.dtype, config, config.sampling.seed), config), "untrained preset"


def new_record(clip: str, model: str, config: "StreamConfig") -> "SessionRecord":
    """Begin the session's record."""
    from streaming_vlm_mlx.export.session import SessionRecord
    from streaming_vlm_mlx.versions import installed_versions

    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return SessionRecord(
        created=created, clip=clip, model=model, settings=config.to_dict(), versions=installed_versions()
    )


def check_writable(path: Path) -> None:
    """Refuse, before any work, a place that nothing can be written to.

    Raises:
        SvmError: `path` is a folder, or its folder can not be made or written.
    """
    from streaming_vlm_mlx.atomic import replacing

    if path.is_dir():
        raise SvmError(f"{path} is a folder; name a file in it.")
    with contextlib.suppress(_Checked), replacing(path):
        raise _Checked


class _Checked(Exception):  # noqa: N818 - no error: it leaves the block before anything is moved into place
    pass


class Keeper:
    """Holds the session's record and sees to it that it is written."""

    def __init__(self, path: Path | None, record: "SessionRecord") -> None:
        self._path, self._record = path, record

    def add(self, done: "SecondDone") -> None:
        """Enter one second."""
        self._record = self._record.add(done)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Write the record when the block ends, however it ends, as long as something was said or nothing failed."""
        try:
            yield
        except BaseException as error:
            if self._record.seconds:
                self._record = self._failed(error)
                self._write()
            raise
        self._write()

    def _failed(self, error: BaseException) -> "SessionRecord":
        from dataclasses import replace

        return replace(self._record, failure=str(error) or type(error).__name__)

    def _write(self) -> None:
        from streaming_vlm_mlx.export.writing import write

        if self._path is None:
            return
        try:
            write(self._path, self._record)
        except SvmError as error:
            refuge = self._refuge()
            write(refuge, self._record)
            raise SvmError(f"{error} The session was kept in {refuge}.") from error
        print(f"svm-tui: {self._path} written.", file=sys.stderr)

    def _refuge(self) -> Path:
        from tui.folders import state_folder

        stamp = self._record.created.replace(":", "")
        return state_folder(os.environ, Path.home()) / f"session-{stamp}.json"


async def _listen(engine: "Engine", source: "Source", args: argparse.Namespace, keeper: Keeper) -> None:
    from streaming_vlm_mlx.stream.events import Failed, SecondDone

    with progress(source, args) as show:
        async with contextlib.aclosing(engine.play(source.chunks(args.start, args.duration))) as events:
            async for event in events:
                show(event)
                if isinstance(event, SecondDone):
                    keeper.add(event)
                    print(_as_json(event) if args.json else _as_line(event), end="", flush=True)
                elif isinstance(event, Failed):
                    raise SvmError(event.message)


def _as_json(done: "SecondDone") -> str:
    from streaming_vlm_mlx.export.session import SpokenSecond

    return json.dumps(SpokenSecond.of(done).to_dict(), ensure_ascii=False) + "\n"


def _as_line(done: "SecondDone") -> str:
    from streaming_vlm_mlx.export.subtitles import clock, tidy

    return f"{clock(round(done.start * 1000))[:-4]}  {tidy(done.text)}\n" if done.text else ""


class _Show(Protocol):
    def __call__(self, event: "Event") -> None: ...


@contextlib.contextmanager
def progress(source: "Source", args: argparse.Namespace) -> Iterator[_Show]:
    """Show how far the clip has been watched, on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    from streaming_vlm_mlx.stream.events import Loading, SecondDone

    known = None if source.duration is None else max(source.duration - args.start, 0.0)
    total = args.duration if known is None else min(known, args.duration or known)
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("loading", total=total)

        def show(event: "Event") -> None:
            if isinstance(event, Loading):
                bar.update(task, description=f"loading {event.stage}")
            elif isinstance(event, SecondDone):
                bar.update(task, description="watching", completed=event.end - args.start)

        yield show
